"""Stored speakers, their templates, search over them, and decisions from scores."""
