"""Sound: what is heard decides how much is computed."""
