"""Raw data to a released foundation model, in one recipe."""

__version__ = "0.1.0"
