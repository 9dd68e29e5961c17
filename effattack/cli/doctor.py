"""``effattack doctor``: what can be measured on this machine."""

from __future__ import annotations

import argparse

from rich.console import Console

from effattack.cli.terminal import PLAIN

HELP = "what can be measured on this machine"
EXAMPLES = """examples:
  effattack doctor
"""


def arguments(doctor: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.measure.doctor import diagnose

    for finding in diagnose():
        mark = "yes" if finding.ok else "no "
        style = None if finding.ok else "yellow"
        console.print(f"{mark}  {finding.what}: {finding.detail}", style=style, **PLAIN)
    return 0
