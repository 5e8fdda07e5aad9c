"""Harm on purpose: what a run survives, tried on real processes."""
