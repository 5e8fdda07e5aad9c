"""De-duplication: a file each."""
