"""Attacks that grew: under the same name and options, another edition finds more.

What such an attack takes back more is no doing of the victim, so a comparison across editions says
that the attack grew. Attacks are read as :meth:`effattack.attacks.Attack.__repr__` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

EDITION = re.compile(r",? ?\bedition=(\d+)")


def split(told: str) -> tuple[str, int]:
    """``"AutoSlow(eps=4/255, edition=2, seed=0)"`` as the attack without its edition, and that."""
    found = EDITION.search(told)
    return EDITION.sub("", told, count=1), int(found[1]) if found else 1


def grown(now: Iterable[str], then: Iterable[str], there: str) -> Iterator[str]:
    """A line per attack of which two evaluations ran different editions.

    Args:
        now: the attacks of one evaluation,
        then: and those of the one that it is compared with,
        there: whose name in messages this is.
    """
    before = dict(map(split, then))
    for attack, edition in dict.fromkeys(map(split, now)):
        name, old = attack.partition("(")[0], before.get(attack, edition)
        if old == edition:
            continue
        what = "grew" if edition > old else "was stronger"
        yield (
            f"the attack {what}: {name} is of edition {edition} here, of edition {old} in {there}; "
            "what it finds more is no doing of the victim: score both under one edition"
        )
