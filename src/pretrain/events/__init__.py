"""One append-only log of what happened, behind console, page and report."""
