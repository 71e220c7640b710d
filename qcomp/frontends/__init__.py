"""Model files become graphs: one package a format."""
