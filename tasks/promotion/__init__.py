"""Whether a new model takes the place of the present one, and the registry that says which one that is."""
