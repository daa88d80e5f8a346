"""Stages in processes of their own: one forked from a warm server, or several by torchrun or accelerate."""
