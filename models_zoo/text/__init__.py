"""Text that is classified and tagged: victims that answer early, and the sentences they learn."""
