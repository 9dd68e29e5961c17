"""What the attacks must achieve on the shipped victims, at ε = 8/255 and 50 gradient evaluations.

Half the images of `effattack run`, so that the whole stays within a minute of one core.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from toys import embedded, embedded_or_skip

from effattack.attacks import Attack, DeepSloth, DeSparsify, Noise, Slowdown
from effattack.models_zoo.digits import digits
from effattack.models_zoo.files import read_card

COUNT = 100
DOCS = Path(__file__).parent.parent / "docs"
MADE = re.compile(r"effattack \d+\.\d+\.\d+,\s+commit `[0-9a-f]{7,}`,\s+\d{4}-\d\d-\d\d")
"""What made a table: version, commit and date."""


def success(attack: Attack) -> float:
    """Attack success on the first test images, from the executed MACs of the batched trace."""
    images, labels = (part[:COUNT] for part in digits("test"))
    adversarial = attack(images, labels)
    with torch.no_grad():
        clean = attack.victim.trace(images).macs.sum().item()
        attacked = attack.victim.trace(adversarial).macs.sum().item()
    return (attacked - clean) / (COUNT * attack.victim.max_macs - clean)


@pytest.mark.parametrize(
    ("name", "published", "floor"),
    [
        ("digits_cnn_early_exit", DeepSloth, 0.85),
        ("digits_tinysaver_cascade", DeepSloth, 0.90),
        ("digits_vit_ats", DeSparsify, 0.60),
    ],
)
@pytest.mark.slow
def test_the_house_attack_takes_the_savings_back(
    name: str, published: type[DeepSloth] | type[DeSparsify], floor: float
) -> None:
    victim = embedded(name)
    house = success(Slowdown(victim, 8 / 255, steps=50))
    assert house >= floor
    assert house >= success(published(victim, 8 / 255, steps=50)) - 0.02
    assert abs(success(Noise(victim, 8 / 255))) <= 0.05


def test_confidence_gates_fall_faster_to_the_hinge() -> None:
    victim = embedded("digits_tinysaver_cascade")
    house = success(Slowdown(victim, 4 / 255, steps=12))
    assert house >= success(DeepSloth(victim, 4 / 255, steps=50))


def test_a_slowdown_that_nobody_notices() -> None:
    victim = embedded("digits_cnn_early_exit")
    images = digits("test")[0][:COUNT]
    attack = Slowdown(victim, 8 / 255, keep_prediction=True)
    adversarial = attack(images)
    assert torch.equal(victim(adversarial).argmax(1), victim(images).argmax(1))
    assert success(attack) >= 0.85


@pytest.mark.parametrize(
    ("name", "savings"),
    [
        ("digits_cnn_early_exit", 0.45),
        ("digits_tinysaver_cascade", 0.25),
        ("digits_vit_ats", 0.70),
        ("digits_vit_int8", 1.0),
    ],
)
def test_victims_are_accurate_and_have_something_to_lose(name: str, savings: float) -> None:
    victim = embedded_or_skip(name)
    images, labels = digits("test")
    with torch.no_grad():
        trace = victim.trace(images)
    accuracy = (trace.logits.argmax(1) == labels).double().mean().item()
    assert accuracy >= 0.95
    assert accuracy >= read_card(name)["dense_accuracy"] - 0.015
    assert trace.macs.mean().item() <= savings * victim.max_macs


def sections(page: str) -> list[tuple[str, str]]:
    """(heading, text) of a page."""
    parts = re.split(r"^## ", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [(heading, text) for heading, _, text in (part.partition("\n") for part in parts[1:])]


def strength_tables(text: str) -> list[str]:
    """Tables of a section with attacks in their rows or columns."""
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    return [table for table in tables if re.match(r"\| attack|.*`AutoSlow`", table)]


def test_every_strength_table_on_digits_shows_ilfo_at_the_gradients_of_autoslow() -> None:
    count = 0
    for heading, text in sections("strength.md"):
        for table in strength_tables(text):
            if "CIFAR" in heading or "ViT-Tiny" in heading:
                continue
            assert "`ILFO(steps=200)`" in table, (heading, table[:200])
            count += 1
    assert count >= 6


def test_slowformer_is_shown_as_printed_and_as_coded() -> None:
    told = dict(sections("strength.md"))["SlowFormer, as printed and as coded"]
    assert all(name in told for name in ("`digits_vit_avit`", "`digits_vit_adavit`"))
    assert all(f"`{name}" in told for name in ("SlowFormer(threat=", "SlowFormer(loss='code'"))


def test_every_table_says_what_made_it() -> None:
    assert MADE.search((DOCS / "published_rows.md").read_text(encoding="utf-8"))
    for heading, text in sections("strength.md"):
        if strength_tables(text):
            assert MADE.search(text), heading
