"""Label Studio's REST API: projects, tasks, predictions, imports, webhook events."""
