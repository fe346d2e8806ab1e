"""Whole-project operations: connect, predict without workers, import archives, export, delete."""
