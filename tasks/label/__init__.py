"""BatchPrompt (arXiv 2309.00384): many inputs in one prompt, asked in several orders, and a vote."""
