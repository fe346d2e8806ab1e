"""The HTTP server: ML backend routes, webhooks, run status, authentication, metrics."""
