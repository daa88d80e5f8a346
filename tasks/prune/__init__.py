"""Removing from the artifact store what no registered model and no recent run refers to."""
