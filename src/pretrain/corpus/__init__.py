"""Raw records to documents to a cut."""
