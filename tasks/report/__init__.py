"""The report: one HTML page and its curves, for every loop."""
