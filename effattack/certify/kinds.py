"""Which kinds of certificate there are, where each is made, and what it covers."""

from __future__ import annotations

from typing import NamedTuple

from effattack.errors import unknown_name


class Known(NamedTuple):
    """One kind of certificate."""

    place: str
    """``module:function`` that makes it, of a victim, its inputs and a threat."""
    covers: str
    """Victims and threats, for messages."""


KINDS = {
    "enumeration": Known(
        "effattack.certify.enumeration:enumeration",
        "budgets with a short list of inputs, such as swap:1 or suffix:2 over a small vocabulary",
    ),
    "exact": Known(
        "effattack.certify.exact:exact",
        "small networks of linear layers and ReLU whose gates are score margins, in boxes: linf "
        "and the whole range",
    ),
    "linear bounds": Known(
        "effattack.certify.linear:linear_bounds",
        "early exits and cascades of convolutions, linear layers, batch norm, ReLU, pooling and "
        "residual sums with exits by confidence or margin, in linf, l2 and l1",
    ),
    "smoothing": Known(
        "effattack.certify.smoothing:smoothing",
        "Smoothed(victim, sigma) of any victim of images or series with known work, opaque ones "
        "too, in l2, and in l-inf by the factor of the square root of the dimension",
    ),
    "cap": Known(
        "effattack.certify.caps:caps",
        "any victim that declares the most that its inputs cost",
    ),
}
"""Name -> where, and what for, in the order in which ``auto`` tries them."""


def covered(*, but: str = "") -> str:
    """What each kind of certificate covers, in a sentence, without one of them."""
    return "; ".join(f"{name}: {kind.covers}" for name, kind in KINDS.items() if name != but)


def check_kind(kind: str) -> None:
    """Refuse a kind that is none.

    Raises:
        UsageError: naming those that there are.
    """
    if kind not in ("auto", *KINDS):
        raise unknown_name("certificate", kind, ["auto", *KINDS])
