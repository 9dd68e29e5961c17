"""Attacks of other libraries."""
