"""Which tensor has which dtype."""
