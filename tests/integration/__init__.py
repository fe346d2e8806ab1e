"""Tests of modules together, with a real store and queue and a stub Label Studio."""
