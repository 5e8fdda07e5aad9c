"""How good a model is, beside what."""
