"""A folder that others load as it is."""
