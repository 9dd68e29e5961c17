"""Detectors: what is found in an image, and the work that finding it takes."""
