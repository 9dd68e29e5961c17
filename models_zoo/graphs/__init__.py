"""Graphs: links are predicted from a neighbourhood that is read until the answer is sure."""
