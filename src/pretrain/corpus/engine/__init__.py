"""Where the corpus' tasks run: a file each."""
