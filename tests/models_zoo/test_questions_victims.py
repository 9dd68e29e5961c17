"""The victims that answer questions about scenes are what their cards say."""

from __future__ import annotations

import pytest
import torch
from toys import embedded_or_skip as embedded

from effattack.models_zoo.detection.scenes import scenes
from effattack.models_zoo.files import WEIGHTS, read_card
from effattack.models_zoo.multimodal.embedded import KEPT
from effattack.models_zoo.multimodal.fusion import SO
from effattack.models_zoo.multimodal.questions import ANSWERS, WORDS, asked, row_of
from effattack.models_zoo.recipes import RECIPES
from effattack.registry import call, import_factory

CLASSIFY = ["questions_cross", "questions_fixed_ratio", "questions_gated", "questions_selected"]
NAMES = [*CLASSIFY, "questions_written"]
every_victim = pytest.mark.parametrize("name", NAMES)
ONE = 1 / 200
"""What one of the test questions counts for: rounding may decide it otherwise elsewhere."""


@pytest.mark.slow
@every_victim
def test_the_card_agrees(name: str) -> None:
    victim, card = embedded(name), read_card(name)
    batch, answers = call(import_factory(victim.data), victim.data)
    with torch.no_grad():
        trace = victim.trace(batch)
    right = victim.task.right(victim.task.answer(trace.logits), answers).double().mean().item()
    assert (card["name"], card["family"]) == (victim.name, victim.family)
    assert right == pytest.approx(card["accuracy"], abs=1.01 * ONE)
    assert trace.macs.mean().item() == pytest.approx(card["clean_macs"], rel=5e-3)
    assert round(victim.max_macs) == card["max_macs"]
    assert sum(p.numel() for p in victim.parameters()) == card["parameters"]


@pytest.mark.parametrize("name", CLASSIFY)
def test_nine_tenths_of_its_dense_model_and_work_that_moves(name: str) -> None:
    victim, card = embedded(name), read_card(name)
    assert card["accuracy"] >= 0.9 * card["dense_accuracy"]
    assert victim.constant == (card["clean_macs"] == card["max_macs"])
    assert victim.constant or card["clean_macs"] <= 0.95 * card["max_macs"]


@every_victim
def test_no_digit_is_counted_in_a_black_image(name: str) -> None:
    victim = embedded(name)
    batch, _ = call(import_factory(victim.data), victim.data)
    batch = batch[batch["question"][:, 0] == WORDS.index("how")]
    with torch.no_grad():
        trace = victim.trace(batch.replaced(image=torch.zeros_like(batch["image"])))
    none = torch.zeros(len(batch), *[1] * (name == "questions_written"), dtype=torch.long)
    assert victim.task.right(victim.task.answer(trace.logits), none).all()


@every_victim
def test_weights_are_small(name: str) -> None:
    recipe = read_card(name)["recipe"].split()[-1]
    assert recipe in RECIPES
    assert (WEIGHTS / f"{recipe}.safetensors").stat().st_size < 600_000


def test_what_is_written_ends_by_itself_and_tells_the_digits() -> None:
    victim, card = embedded("questions_written"), read_card("questions_written")
    assert card["accuracy"] >= 0.85
    assert card["capped"] == 0
    assert card["clean_passes"] < victim.cap / 2
    batch, (_, boxes) = asked("heldout")[0], scenes("heldout")
    with torch.no_grad():
        texts = victim(batch[::3][:40]).tolist()
    read = [sorted(ANSWERS[sign] for sign in text[: text.index(SO)]) for text in texts]
    there = [sorted(row_of(rows[rows[:, 4] >= 0])) for rows in boxes[:40]]
    assert sum(map(list.__eq__, read, there)) >= 32, "their order is often another"


def test_the_control_keeps_as_many_as_the_rule_on_average() -> None:
    victim = embedded("questions_selected")
    with torch.no_grad():
        kept = victim.trace(asked("heldout")[0][:200]).gates[0].active.sum(1)
    assert round(kept.double().mean().item()) == KEPT
    assert kept.min() < KEPT < kept.max()
