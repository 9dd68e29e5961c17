"""Victims small enough that their worst case is known: attacks are graded against the truth."""
