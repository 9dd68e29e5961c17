"""The cure: victims that keep more of their savings under attack, and what that cost."""
