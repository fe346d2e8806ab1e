"""Builders, stubs and processes that several test files share."""
