"""Models that take inputs of several kinds: an image with a question, a sensor with a camera."""
