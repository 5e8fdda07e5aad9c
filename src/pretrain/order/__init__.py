"""Which tokens stand where, as a function of one integer."""
