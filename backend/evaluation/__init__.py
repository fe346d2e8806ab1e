"""Labelled images in, measures out: of one encoder, or of several compared."""
