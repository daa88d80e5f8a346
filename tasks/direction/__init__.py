"""How well a model answers in both directions, and the gap between them."""
