"""Models that take several kinds of input: an image with a question, a sensor with a camera."""
