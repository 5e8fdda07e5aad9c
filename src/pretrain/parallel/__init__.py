"""The same model on many devices: applied to a plain module from outside, derived from its weight table."""
