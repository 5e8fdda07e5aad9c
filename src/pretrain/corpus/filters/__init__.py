"""Filters: a file each, measures and rules."""
