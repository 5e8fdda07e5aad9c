"""Tokens of documents on disk, immutable, named by digest."""
