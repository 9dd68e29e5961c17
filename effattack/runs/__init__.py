"""From a question to finished cells."""
