"""A table of facts: what is taught, and what is asked in both directions."""
