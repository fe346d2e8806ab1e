"""Measurements of speed and accuracy, run by hand; docs/ reports their results."""
