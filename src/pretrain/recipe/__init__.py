"""Everything that can be said of a run: TOML over frozen dataclasses, every value with its origin."""
