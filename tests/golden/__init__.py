"""Recorded answers, compared with today's, so that a refactor cannot change them unseen."""
