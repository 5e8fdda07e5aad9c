"""From a step back to its documents, and from a document to its steps."""
