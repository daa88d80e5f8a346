"""RLHF on one machine: proximal policy optimisation of a language model whose frozen base plays every role."""
