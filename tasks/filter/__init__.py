"""The filter stage: keeps or rejects what a teacher wrote, every rejection with its reason."""
