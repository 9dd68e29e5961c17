"""The per-sample frame: its columns, and the number of their meaning."""

from __future__ import annotations

SCHEMA = 2
"""Of the stored frames; raised when their columns change meaning."""

COLUMNS = [
    *("victim", "family", "attack", "kind", "threat", "eps", "seed", "sample", "label"),
    *("prediction", "clean_prediction", "macs", "clean_macs", "dense_macs", "max_macs", "constant"),
    *("elementwise", "clean_elementwise", "outside"),
    *("knife_edge", "linf", "l2", "batch_size", "seconds", "clean_seconds", "clock"),
    *("event_seconds", "clean_event_seconds", "environment", "joules", "clean_joules"),
    *("idle_watts", "modelled_joules", "clean_modelled_joules", "node", "device"),
    *("opened", "decisions", "image", "l1", "pixels"),
]
"""Columns of the per-sample frame; README of the fields in ``docs/frames.md``."""
LATER = {"l1", "pixels"}
"""Columns that earlier frames of this schema lack: not measured there."""
