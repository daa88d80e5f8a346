"""Supervised fine-tuning of a student on its examples: LoRA, QLoRA or all weights."""
