"""``effattack list``: what can be named."""

from __future__ import annotations

import argparse

from rich.console import Console

from effattack.cli.terminal import PLAIN

HELP = "what can be named"
EXAMPLES = """examples:
  effattack list victims
  effattack list attacks
"""


def arguments(listing: argparse.ArgumentParser) -> None:
    listing.add_argument("what", choices=["victims", "attacks"])


def run(options: argparse.Namespace, console: Console) -> int:
    if options.what == "victims":
        from effattack.registry import VICTIMS, entries

        rows = {name: entry.value for name, entry in sorted(entries(VICTIMS).items())}
    else:
        from effattack.attacks import attack_class, names

        rows = {name: first_line(attack_class(name)) for name in names()}
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        console.print(f"{name:{width}}  {text}", **PLAIN)
    return 0


def first_line(thing: object) -> str:
    """The first line of a docstring."""
    return (thing.__doc__ or "").strip().splitlines()[0]
