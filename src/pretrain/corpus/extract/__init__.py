"""Taking the text out of a payload: a file each."""
