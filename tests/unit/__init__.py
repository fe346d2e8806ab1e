"""Tests of single modules: no server, no queue, no Label Studio."""
