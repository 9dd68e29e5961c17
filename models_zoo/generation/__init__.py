"""Generators: victims whose prompts decide how much is written, and what they are made of."""
