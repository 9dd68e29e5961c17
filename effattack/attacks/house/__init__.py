"""Our own attacks."""
