"""``effattack caps``: whether the caps of a server hold."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from effattack.cli.terminal import PLAIN

if TYPE_CHECKING:
    from effattack.measure.caps import Row
    from effattack.victim.endpoint import Server

HELP = "ask a server of your own for more than its caps admit, and see which hold"
EXAMPLES = """examples:
  effattack caps http://127.0.0.1:8000 --model mine --tokenizer model/ --requests 20 --tokens 2000
  effattack caps https://llm.example.org/v1 --model mine --tokenizer mypackage.words:tokenizer \\
      --requests 20 --tokens 2000 --authorised "Jo Doe, owner" --key-from LLM_KEY --json
"""
SCHEMA = 1
"""Of ``--json``; raised when its fields change meaning."""


def arguments(caps: argparse.ArgumentParser) -> None:
    caps.add_argument("url", metavar="URL", help="of a server that speaks OpenAI's protocol")
    caps.add_argument("--model", required=True, metavar="NAME", help="its name there")
    caps.add_argument(
        "--tokenizer",
        required=True,
        metavar="FOLDER|FILE.json|MODULE:FACTORY",
        help="of the model, which counts what is written",
    )
    caps.add_argument(
        "--requests", type=int, required=True, metavar="N", help="most requests that are sent"
    )
    caps.add_argument(
        "--tokens", type=int, required=True, metavar="N", help="most tokens sent and received"
    )
    caps.add_argument(
        "--cap", type=int, default=24, metavar="N", help="tokens that are asked for at most (24)"
    )
    caps.add_argument("--prompt", metavar="TEXT", help="that makes the model write long texts")
    caps.add_argument(
        "--reasoning",
        default="thinking_token_budget",
        metavar="FIELD",
        help="the server's field for a budget of reasoning tokens (thinking_token_budget)",
    )
    caps.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="for an answer (60)"
    )
    caps.add_argument(
        "--retries", type=int, default=1, metavar="N", help="of a request that failed (1)"
    )
    caps.add_argument(
        "--authorised", metavar="WHO", help="who allows it, where the server is elsewhere"
    )
    caps.add_argument("--key-from", metavar="VARIABLE", help="environment variable with the key")
    choice = caps.add_mutually_exclusive_group()
    choice.add_argument("--quiet", action="store_true", help="say only which caps do not hold")
    choice.add_argument("--json", action="store_true", help="rows as JSON, and nothing else")


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.cli.output import print_bad_news
    from effattack.measure import caps
    from effattack.victim.endpoint import Server, tokenizer_of

    settings = ("requests", "tokens", "authorised", "key_from", "timeout", "retries")
    server = Server(
        options.url,
        options.model,
        tokenizer=tokenizer_of(options.tokenizer),
        **{name: getattr(options, name) for name in settings},
    )
    asked = {"cap": options.cap, "reasoning": options.reasoning}
    rows: list[Row] = []
    for row in caps.caps(server, prompt=options.prompt or caps.PROMPT, **asked):
        if not rows:
            for line in heading(server):
                console.print(line, **PLAIN)
        rows.append(row)
        console.print(line_of(row), **PLAIN)
    console.print(spent(server), **PLAIN)
    bad = [f"{one.promise} ({one.way}): {one.found}" for one in rows if one.verdict == caps.BROKEN]
    if options.quiet:
        print_bad_news(bad, options)
    if options.json:
        print(json.dumps(as_json(server, rows), indent=1), file=options.stdout)
    return exit_code(rows)


def exit_code(rows: Sequence[Row]) -> int:
    """1 where a cap does not hold; 3 where a row failed, or ``max_tokens`` shows nothing."""
    from effattack.measure.caps import BROKEN, FAILED, HOLDS

    verdicts = {row.verdict for row in rows}
    if BROKEN in verdicts:
        return 1
    shown = all(row.verdict == HOLDS for row in rows if row.promise == "max_tokens")
    return 0 if shown and FAILED not in verdicts else 3


def heading(server: Server) -> list[str]:
    allowed = f", allowed by {server.authorised}" if server.authorised else ""
    names = f"{'promise':22} {'way':6} {'verdict':9} {'tokens':>6} {'claim':>6} {'s':>6}  found"
    return [f"{server.model} at {server.where}{allowed}", names]


def line_of(row: Row) -> str:
    """A row of the table; what is not known is a dash."""
    tokens, claimed = ("–" if x is None else f"{x}" for x in (row.tokens, row.claimed))
    seconds = "–" if row.seconds is None else f"{row.seconds:.2f}"
    left = f"{row.promise:22} {row.way:6} {row.verdict:9}"
    return f"{left} {tokens:>6} {claimed:>6} {seconds:>6}  {row.found}"


def spent(server: Server) -> str:
    """What the test itself took."""
    attempts = sum(one.attempts for one in server.asked)
    received = sum(one.tokens for one in server.asked)
    return f"{attempts} requests, {received} tokens received"


def as_json(server: Server, rows: Sequence[Row]) -> dict[str, Any]:
    """All rows, and what they took; the key is not in it."""
    return {
        "schema": SCHEMA,
        "url": server.where,
        "model": server.model,
        "authorised": server.authorised,
        "requests": sum(one.attempts for one in server.asked),
        "tokens_received": sum(one.tokens for one in server.asked),
        "rows": [row._asdict() for row in rows],
    }
