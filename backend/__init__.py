"""The plugin itself, one package per responsibility; `jobs` holds what runs in the queue."""
