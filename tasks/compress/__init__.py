"""LLMLingua-2: a prompt compressor distilled from a teacher, trained, measured, and used."""
