"""From a recipe to a run directory: the graph of stages, each done once."""
