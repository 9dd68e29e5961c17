"""Models that take more than one kind of input: an image with a question, a sensor with a camera."""
