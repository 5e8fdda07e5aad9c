"""Families: a file each, with Config, weights and build."""
