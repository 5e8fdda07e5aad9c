"""Views of the event log."""
