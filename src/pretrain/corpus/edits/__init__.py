"""Steps that change a document: a file each."""
