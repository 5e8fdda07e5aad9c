"""Readers: a file each, bytes to documents."""
