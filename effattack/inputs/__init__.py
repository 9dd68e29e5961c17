"""Where inputs are read from."""
