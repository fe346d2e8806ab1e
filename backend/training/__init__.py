"""Reviewed annotations in, trained and judged heads out."""
