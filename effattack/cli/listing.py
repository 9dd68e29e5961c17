"""``effattack list``: what can be named."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Console

from effattack.cli.terminal import PLAIN

HELP = "what can be named: ours, and what installed packages register"
EXAMPLES = """examples:
  effattack list victims
  effattack list attacks
  effattack list threats
"""


def arguments(listing: argparse.ArgumentParser) -> None:
    listing.add_argument("what", choices=[*KINDS])


def run(options: argparse.Namespace, console: Console) -> int:
    rows = KINDS[options.what]()
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        console.print(f"{name:{width}}  {text}", **PLAIN)
    return 0


def _victims() -> dict[str, str]:
    from effattack.registry import VICTIMS, entries

    return {name: entry.value for name, entry in sorted(entries(VICTIMS).items())}


def _attacks() -> dict[str, str]:
    from effattack.attacks import attack_class, names

    return {name: first_line(attack_class(name)) for name in names()}


def _threats() -> dict[str, str]:
    from effattack.threats.by_name import names, threat_class

    return {name: first_line(threat_class(name)) for name in names()}


def _scores() -> dict[str, str]:
    from effattack.reporting.nouns import INPUT
    from effattack.results.table import known

    return {name: INPUT.fill(score.shown.meaning or score.words) for name, score in known().items()}


def _domains() -> dict[str, str]:
    from effattack.domains.by_name import domain_class, names

    return {name: first_line(domain_class(name)) for name in names()}


KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "victims": _victims,
    "attacks": _attacks,
    "threats": _threats,
    "scores": _scores,
    "domains": _domains,
}


def first_line(thing: object) -> str:
    """The first line of a docstring."""
    return (thing.__doc__ or "").strip().partition("\n")[0]
