"""The worst prompts as JSON lines that benchmarks of servers and observers of traces read.

``vllm``: ``vllm bench serve --dataset-name custom`` (``prompt``; ``output_tokens`` is what is asked
for where ``--custom-output-len`` is -1). ``aiperf``: ``--custom-dataset-type single_turn``
(``text``, ``output_length``). ``otel``: what a prompt cost, by the names of OpenTelemetry's
conventions for generative models (``gen_ai.usage.*``, ``gen_ai.response.finish_reasons``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from effattack.domains import Tokens
from effattack.domains.tokens import unpadded
from effattack.errors import UsageError
from effattack.inputs.corpus import Corpus
from effattack.runs.choosing import chosen
from effattack.victim import Victim


class Prompt(NamedTuple):
    """A stored prompt, and what the victim does with it now."""

    text: str
    model: str
    cap: int
    """Most tokens that the victim writes."""
    input_tokens: int
    """Of the user's part."""
    output_tokens: int
    capped: bool
    """Whether the cap ended the text."""


def _vllm(prompt: Prompt) -> dict[str, Any]:
    return {"prompt": prompt.text, "output_tokens": prompt.cap}


def _aiperf(prompt: Prompt) -> dict[str, Any]:
    return {"text": prompt.text, "output_length": prompt.cap}


def _otel(prompt: Prompt) -> dict[str, Any]:
    said = {"role": "user", "parts": [{"type": "text", "content": prompt.text}]}
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": prompt.model,
        "gen_ai.request.max_tokens": prompt.cap,
        "gen_ai.input.messages": [said],
        "gen_ai.usage.input_tokens": prompt.input_tokens,
        "gen_ai.usage.output_tokens": prompt.output_tokens,
        "gen_ai.response.finish_reasons": ["length" if prompt.capped else "stop"],
    }


FORMATS: Mapping[str, Callable[[Prompt], dict[str, Any]]] = {
    "vllm": _vllm,
    "aiperf": _aiperf,
    "otel": _otel,
}
"""Name -> the object of a line."""


def worst_prompts(victim: Victim, corpora: Sequence[Corpus]) -> list[Prompt]:
    """The attacked prompts of corpora, each once, and what the victim writes after them.

    Args:
        victim: a generator whose domain has a tokenizer and whose task a cap; it runs once on each.
        corpora: of it, or of another that takes the same prompts.

    Raises:
        UsageError: for a victim that is none, or corpora of other inputs.
    """
    domain, cap = victim.domain, getattr(victim.task, "cap", None)
    if not isinstance(domain, Tokens) or domain.tokenizer is None or cap is None:
        raise UsageError(
            f"{victim.name} takes {domain.nouns}: benchmarks of servers read prompts of a "
            "generator, one with a tokenizer and a cap"
        )
    if "output_tokens" not in victim.counts:
        raise UsageError(f"{victim.name} counts no output_tokens: name a generator")
    rows = dict.fromkeys(row for corpus in chosen(victim, corpora) for row in corpus.attacked)
    prompts = domain.unpack([*rows], domain.example(1))
    domain.check(prompts)
    with torch.no_grad():
        trace = victim.trace(domain.place(prompts, victim.device))
    return [
        Prompt(
            domain.tokenizer.decode(ids.tolist()), victim.name, cap, len(ids), int(written), capped
        )
        for ids, written, capped in zip(
            unpadded(prompts),
            trace.also["output_tokens"].tolist(),
            trace.aux["capped"].tolist(),
            strict=True,
        )
    ]


def as_lines(prompts: Sequence[Prompt], form: str) -> str:
    """The text of a file in one of ``FORMATS``."""
    made = FORMATS[form]
    return "".join(json.dumps(made(one), ensure_ascii=False) + "\n" for one in prompts)
