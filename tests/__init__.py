"""All tests: unit, integration, e2e, and golden recordings."""
