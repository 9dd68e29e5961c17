"""How threats are written, by the kind of domain that they move in."""

from __future__ import annotations

from effattack.registry import entries

GROUP = "effattack.threats"
"""Entry points of threats."""
FORMS = {
    "pixels": "linf:8/255, l2:1.0, l1:10, patch:16, patch:16@4,4, pixels:20 or box, "
    "and of files of any size size:4096",
    "series": "linf:.1sd, linf:.002, l2:1.0, l1:10, window:16, window:16@4, pixels:20 or box",
    "tokens": "suffix:10, prefix:10, swap:3, or with a tokenizer chars:2",
    "graph": "edges:2",
    "parts": "the name of a part before its threat, such as image:linf:8/255",
}
"""Domain kind -> examples of every threat that applies."""


def forms(kind: str) -> str:
    """What a user may write for inputs of a kind; of a kind from outside, all that there is."""
    ours = FORMS.get(kind) or "; ".join(f"{each}: {text}" for each, text in FORMS.items())
    others = ", ".join(f"{name}:SIZE" for name in sorted(entries(GROUP)))
    return f"{ours}; of other packages: {others}" if others else ours
