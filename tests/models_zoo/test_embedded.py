"""The trained victims are what their cards say."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import embedded_or_skip as load

from effattack.errors import UsageError
from effattack.models_zoo import train
from effattack.models_zoo.files import WEIGHTS, read_card
from effattack.models_zoo.recipes import RECIPES
from effattack.registry import call, import_factory
from effattack.victim import Trace

NAMES = sorted(
    entry.name
    for entry in entry_points(group="effattack.victims")
    if entry.value.startswith(
        tuple(
            f"effattack.models_zoo.{place}"
            for place in ("embedded:", "exam.", "hardened:", "series.")
        )
    )
)
CONTROLS = {
    "digits_vit_evit",
    "digits_vit_tome",
    "digits_vit_dynamicvit_topk",
    "digits_vit_int8",
    "digits_vit_int8_weight_only",
    "digits_vit_int4_weight_only",
    "digits_cnn_int8",
    "digits_cnn_pruned",
}
WEIGHT_ONLY = {"digits_vit_int8_weight_only": (8, 32), "digits_vit_int4_weight_only": (4, 32)}
"""Bits of weights and activations, where they are not 8 and 8."""
RUNG = {
    "digits_vit_avit",
    "digits_vit_adavit",
    "digits_vit_dynamicvit",
    "digits_vit_exit",
    "digits_cnn_sdn",
    "digits_msdnet",
    "digits_skipnet",
    "digits_esn",
    "digits_three_stage_cascade",
    "digits_cnn_early_exit_int8",
    "digits_tinysaver_cascade_int8",
    "digits_vit_ats_int8",
    "digits_cnn_early_exit_hardened",
    "digits_tinysaver_cascade_hardened",
    *CONTROLS,
}
SERIES = {"cbf_early_gru", "cbf_cnn_exit", "cbf_transformer_merge"}
EXAM = {"exam_exit", "exam_cascade", "exam_skip"}
ONE = 1 / 300
"""What one of the inputs counts for in an accuracy: rounding may decide it otherwise elsewhere."""

every_victim = pytest.mark.parametrize("name", NAMES)


@cache
def traced(name: str) -> Trace:
    with torch.no_grad():
        return load(name).trace(scored(name)[0])


@cache
def scored(name: str) -> tuple[Tensor, Tensor]:
    """The inputs and labels that a victim brings."""
    data = load(name).data
    assert data is not None
    return call(import_factory(data), data)


@every_victim
def test_an_empty_batch_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"at least one (image|series) of shape"):
        load(name)(scored(name)[0][:0])


def test_the_whole_rung_is_registered() -> None:
    assert set(NAMES) >= RUNG | SERIES | EXAM


@every_victim
def test_the_card_agrees(name: str) -> None:
    victim, card, trace = load(name), read_card(name), traced(name)
    accuracy = (trace.logits.argmax(1) == scored(name)[1]).double().mean().item()
    assert (card["name"], card["family"]) == (victim.name, victim.family)
    assert accuracy == pytest.approx(card["accuracy"], abs=1.01 * ONE)
    assert trace.macs.mean().item() == pytest.approx(card["clean_macs"], rel=5e-3)
    assert round(victim.max_macs) == card["max_macs"]
    assert round(victim.dense_macs) == card["dense_macs"]
    assert sum(p.numel() for p in victim.parameters()) == card["parameters"]


@every_victim
def test_quantized_victims_have_bit_operations_on_their_card(name: str) -> None:
    victim, card = load(name), read_card(name)
    quantized = hasattr(victim, "quantized_macs")
    assert quantized == ("clean_bit_operations" in card)
    if quantized:
        floats = 32 * 32 * (card["clean_macs"] - victim.quantized_macs)
        weights, activations = WEIGHT_ONLY.get(name, (8, 8))
        expected = weights * activations * victim.quantized_macs + floats
        assert card["clean_bit_operations"] == pytest.approx(expected, rel=5e-3)
        assert card["clean_bit_operations"] < 32 * 32 * card["dense_macs"] / 2


@every_victim
def test_accurate_and_with_savings_to_lose(name: str) -> None:
    card = read_card(name)
    assert card["accuracy"] >= 0.95
    assert card["accuracy"] >= card["dense_accuracy"] - 0.02
    if not load(name).constant:
        assert card["clean_macs"] <= 0.75 * card["max_macs"]


@pytest.mark.parametrize("name", sorted(EXAM))
def test_the_exam_is_small_enough_to_be_solved(name: str) -> None:
    weights = sum(p.numel() for p in load(name).parameters() if p.dim() == 2)
    assert 2000 <= weights <= 5000
    assert read_card(name)["clean_macs"] <= 0.7 * read_card(name)["max_macs"]


@every_victim
def test_only_adaptive_victims_vary(name: str) -> None:
    victim, macs = load(name), traced(name).macs
    assert victim.constant or name not in CONTROLS
    if victim.constant:
        assert (macs == victim.max_macs).all()
    else:
        assert len(macs.unique()) > 1


@every_victim
def test_the_card_names_its_recipe(name: str) -> None:
    assert read_card(name)["recipe"].split()[:-1] == ["python", "-m", train.__name__]
    assert read_card(name)["recipe"].split()[-1] in RECIPES


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_weights_are_small(path: Path) -> None:
    assert path.stat().st_size <= 1_000_000
