"""``effattack list``: what can be named."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from importlib.resources import files

from rich.console import Console

from effattack.cli.terminal import PLAIN

HELP = "what can be named: ours, and what installed packages register"
EXAMPLES = """examples:
  effattack list victims
  effattack list attacks
  effattack list threats
"""
OTHERS = "of other packages"
"""Victims without a card of ours."""


def arguments(listing: argparse.ArgumentParser) -> None:
    listing.add_argument("what", choices=[*KINDS])


def run(options: argparse.Namespace, console: Console) -> int:
    rows = KINDS[options.what]()
    width = max(map(len, rows), default=0)
    grouped = options.what == "victims" and console.is_terminal
    groups = by_family(rows) if grouped else {"": [*rows]}
    for family, names in groups.items():
        if family:
            console.print(family, style="bold", **PLAIN)
        for name in names:
            console.print(f"{'  ' * grouped}{name:{width}}  {rows[name]}", **PLAIN)
    return 0


def by_family(victims: Mapping[str, str]) -> dict[str, list[str]]:
    """Family -> names of its victims, as our cards tell it; those of other packages at the end.

    Cards are plain files: no victim is loaded, and the list is there at once.

    Args:
        victims: name -> the path of its factory.
    """
    cards = files("effattack") / "models_zoo" / "cards"
    found: dict[str, list[str]] = {}
    for name, path in victims.items():
        card, family = cards / f"{name}.json", OTHERS
        if path.startswith("effattack.") and card.is_file():
            family = json.loads(card.read_text("utf-8"))["family"]
        found.setdefault(family, []).append(name)
    return dict(sorted(found.items(), key=lambda group: (group[0] == OTHERS, group[0])))


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
