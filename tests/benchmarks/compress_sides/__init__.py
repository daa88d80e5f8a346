"""The three processes that the benchmark `compress` compares, and what they share."""
