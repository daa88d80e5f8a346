"""Reversed copies of rows, by token, word, entity or random segment, and how they are mixed with the rows."""
