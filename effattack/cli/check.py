"""``effattack check``: whether a domain keeps the laws that every stored number rests on."""

from __future__ import annotations

import argparse

from rich.console import Console

from effattack.cli.terminal import PLAIN

HELP = "hold domains of your own to their laws, before anything is scored"
EXAMPLES = """examples:
  effattack check "mypackage.domains:Forms(questions=12, answers=5)"
"""


def arguments(check: argparse.ArgumentParser) -> None:
    check.add_argument(
        "domains",
        nargs="+",
        metavar="NAME|MODULE:CLASS(ARGUMENT=VALUE, ...)",
        help="as effattack list domains names them",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.domains import check_domain
    from effattack.domains.by_name import domain_of

    for text in options.domains:
        domain = domain_of(text)
        check_domain(domain)
        console.print(f"{text}: keeps its laws; {domain.nouns}", **PLAIN)
    return 0
