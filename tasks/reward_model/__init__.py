"""A learned reward: preference pairs, the training of a reward model on them, and scoring with it."""
