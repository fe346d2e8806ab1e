"""A project's labels, with how each is known, as files that a trainer of models can read."""
