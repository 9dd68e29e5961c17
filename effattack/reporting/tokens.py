"""Token sequences as text or ids, with what changed marked, and where each token left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from markupsafe import Markup

from effattack.reporting.stored import Description
from effattack.reporting.strips import Pair, Shown, Strips
from effattack.reporting.verdict import Row
from effattack.results.decisions import from_text

MOST = 200
"""Tokens that are shown of a sequence."""
HOW = (
    "Of token sequences the text is shown where a tokenizer tells it, else the ids; tokens that "
    "differ from the other sequence are marked."
)
PER_TOKEN = ".tokens"
"""How a gate ends its name that has a unit per token."""


def can(domain: Description) -> bool:
    """All of them."""
    return True


def size(domain: Description) -> float:
    """Bytes of two sequences."""
    return 2 * 20.0 * MOST


def show(pairs: Sequence[Pair], domain: Description) -> Strips:
    """Both sequences of each input."""
    strips = [_strip(pair) for pair in pairs]
    leave = any(passed(pair.row) for pair in pairs)
    return Strips(strips, "small numbers: decisions that each token went past" if leave else "")


def passed(row: Row) -> list[int]:
    """Gates that each token went past; empty where tokens do not leave one by one."""
    told = row.get("decisions")
    gates = [
        units
        for name, units in from_text(told if isinstance(told, str) else "{}").items()
        if name.endswith(PER_TOKEN)
    ]
    if len({len(units) for units in gates}) != 1:
        return []
    return [sum(map(int, units)) for units in zip(*gates, strict=True)]


def _strip(pair: Pair) -> list[Shown]:
    before, after = pair.clean.tolist(), pair.attacked.tolist()
    changes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    spans = [(start, stop) for tag, start, stop, _, _ in changes if tag != "equal"]
    others = [(start, stop) for tag, _, _, start, stop in changes if tag != "equal"]
    return [
        Shown(f"clean, {len(before)} tokens", _marked(before, spans, passed(pair.before))),
        Shown(f"attacked, {len(after)} tokens", _marked(after, others, passed(pair.row))),
    ]


def _marked(tokens: list[object], spans: list[tuple[int, int]], left: list[int]) -> Markup:
    more = f" and {len(tokens) - MOST} more" if len(tokens) > MOST else ""
    words = Markup(" ").join(_words(tokens, spans, left))
    return Markup('<p class="ids">{}{}</p>').format(words, more)


def _words(
    tokens: list[object], spans: list[tuple[int, int]], left: list[int]
) -> Iterator[Markup | str]:
    changed = {at for start, stop in spans for at in range(start, stop)}
    for at, token in enumerate(tokens[:MOST]):
        word = Markup("<mark>{}</mark>").format(token) if at in changed else str(token)
        yield Markup("{}<sub>{}</sub>").format(word, left[at]) if at < len(left) else word
