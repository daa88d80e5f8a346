"""Two policies answer the same prompts: which one is preferred, and what else changed."""
