"""Instruction data from a handful of seeds: Self-Instruct, Evol-Instruct, instruction backtranslation, paraphrase."""
