"""Token sequences as their ids, with what changed marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from markupsafe import Markup

from effattack.reporting.stored import Description
from effattack.reporting.strips import Pair, Shown, Strips

MOST = 200
"""Tokens that are shown of a sequence."""
HOW = "Of token sequences the ids are shown; those that differ from the other one are marked."


def can(domain: Description) -> bool:
    """All of them."""
    return True


def size(domain: Description) -> float:
    """Bytes of two sequences."""
    return 2 * 20.0 * MOST


def show(pairs: Sequence[Pair]) -> Strips:
    """Both sequences of each input."""
    return Strips([_strip(pair) for pair in pairs], "")


def _strip(pair: Pair) -> list[Shown]:
    before, after = pair.clean.tolist(), pair.attacked.tolist()
    changes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    spans = [(start, stop) for tag, start, stop, _, _ in changes if tag != "equal"]
    others = [(start, stop) for tag, _, _, start, stop in changes if tag != "equal"]
    return [
        Shown(f"clean, {len(before)} tokens", _marked(before, spans)),
        Shown(f"attacked, {len(after)} tokens", _marked(after, others)),
    ]


def _marked(ids: list[int], spans: list[tuple[int, int]]) -> Markup:
    left_out = f" and {len(ids) - MOST} more" if len(ids) > MOST else ""
    return Markup('<p class="ids">{}{}</p>').format(Markup(" ").join(_words(ids, spans)), left_out)


def _words(ids: list[int], spans: list[tuple[int, int]]) -> Iterator[Markup | str]:
    changed = {at for start, stop in spans for at in range(start, stop)}
    for at, token in enumerate(ids[:MOST]):
        yield Markup("<mark>{}</mark>").format(token) if at in changed else str(token)
