"""Tests against a real Label Studio, through its API and a browser."""
