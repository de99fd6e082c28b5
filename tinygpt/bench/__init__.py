"""Measurements against peers; imported by cli only."""
