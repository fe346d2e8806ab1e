"""Whole-project operations: connect, archive, restore, export, fill data, delete."""
