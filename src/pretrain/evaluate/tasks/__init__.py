"""Tasks: a file each."""
