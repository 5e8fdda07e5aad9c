"""Weight tables, layers and families."""
