"""Names in texts: given with the rows, from a list, or found by a model."""
