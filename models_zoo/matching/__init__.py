"""Victims that match the points of two images."""
