"""Objectives: a file each."""
