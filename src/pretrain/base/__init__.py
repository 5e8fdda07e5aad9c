"""What every room needs: errors, leaves by name, files that are whole or absent, keyed randomness, units."""
