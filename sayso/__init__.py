"""Sayso's command line."""
