"""The smallest budget that does."""
