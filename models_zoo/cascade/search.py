"""TinySaver's search: which of your models saves which, and from which confidence on.

Or which saves most under attack (:func:`search_robust_saver`): the paper's knows no attacker.

Wang et al., ECCV 2024 (arXiv 2403.17726), the saver selection. Every model that costs less than
the base is a candidate. Its threshold is the paper's, matched accuracy on what it answers
(:func:`~effattack.models_zoo.cascade.cascade.saver_threshold`); the best saver is the one with
which the least is executed on held-out images.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from effattack.attacks import build
from effattack.attacks.base import as_threat
from effattack.counting.macs import count_macs
from effattack.errors import UsageError, unknown_name
from effattack.models_zoo.cascade.cascade import TinySaver, saver_threshold
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.exits import lowest_threshold
from effattack.threats import Threat

BATCH = 256


def search_saver(
    models: Mapping[str, nn.Module], base: str, images: Tensor, labels: Tensor, **settings: Any
) -> tuple[TinySaver | None, pd.DataFrame]:
    """The best saver for a base model among your other models.

    Args:
        models: name -> classifier (B, *input_shape) -> (B, classes), the base among them.
        base: the name of the model to save.
        images: (B, *input_shape), held-out: neither trained on nor scored.
        labels: (B,).
        settings: of the victim: ``name``, ``data``.

    Returns:
        The cascade, or None where no saver saves and the base alone costs least; and the table of
        :func:`rank_savers` for this base.

    Raises:
        UsageError: for an unknown base, or what :func:`rank_savers` refuses.
    """
    if base not in models:
        raise unknown_name("base model", base, models)
    logits, macs = _looked(models, images)
    table = rank_savers(logits, macs, labels, bases=[base])
    return _cascade(models, table.iloc[0], images, **settings), table


def search_robust_saver(
    models: Mapping[str, nn.Module],
    base: str,
    images: Tensor,
    labels: Tensor,
    threat: Threat | str,
    *,
    attack: str = "AutoSlow",
    drop: float = 0.005,
    attacked: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> tuple[TinySaver | None, pd.DataFrame]:
    """The saver with which the least is executed under attack, among those equally accurate.

    Each saver gets the lowest threshold whose accuracy stays within ``drop`` of the base's: of one
    saver's thresholds it is the best one under any attack, as an image that is handed on at it is
    handed on at every higher one.

    Args:
        models, base, images, labels, settings: see :func:`search_saver`.
        threat: what the attacker may change.
        attack: its name, with options if any.
        drop: of accuracy on the clean images, at most.
        attacked: how many of the images, the first ones, each pair is attacked on; by default all.
        seed: of the attack.

    Returns:
        The cascade, or None where the base alone costs least; and a table as that of
        :func:`rank_savers` with ``attacked_macs`` (mean, under the attack), ranked by them. A saver
        whose ``exit_rate`` is 1 never asks the base: nothing can be taken back, and nothing is
        adaptive about it.

    Raises:
        UsageError: for an unknown base or attack, or what :func:`rank_savers` refuses.
    """
    if base not in models:
        raise unknown_name("base model", base, models)
    logits, macs = _looked(models, images)
    expect_alike(logits, macs, labels)
    rows = [_row(base, "", 1.0, logits, macs, labels) | {"attacked_macs": macs[base]}]
    for saver in models:
        if macs[saver] < macs[base]:
            pair = torch.stack([logits[saver], logits[base]], dim=1)
            threshold = lowest_threshold(pair, labels, drop)
            row = _row(base, saver, threshold, logits, macs, labels)
            victim = _cascade(models, pd.Series(row), images)
            assert victim is not None
            found = build(attack, victim, as_threat(threat), seed)(
                images[:attacked], labels[:attacked]
            )
            rows.append(row | {"attacked_macs": _mean_macs(victim, found)})
    table = pd.DataFrame(rows).sort_values(["attacked_macs", "macs"], ignore_index=True)
    return _cascade(models, table.iloc[0], images, **settings), table


def rank_savers(
    logits: Mapping[str, Tensor],
    macs: Mapping[str, float],
    labels: Tensor,
    bases: Collection[str] | None = None,
) -> pd.DataFrame:
    """Every base with every saver that costs less, and alone: the cheapest first, base by base.

    Args:
        logits: name -> (B, classes), of every model on the same held-out images.
        macs: name -> MACs of one image.
        labels: (B,).
        bases: names of the models to save; by default all.

    Returns:
        One row per pair: ``base``, ``saver`` (empty: the base alone), ``threshold``, ``exit_rate``
        (share of the images that the saver answers), ``macs`` (expected, per image), ``saved``
        (share of the base's MACs; negative where the saver costs more than it saves: -ΔC of the
        paper), ``accuracy`` of the pair and ``base_accuracy``. What costs the same is ranked by
        accuracy. The threshold lies one step past the match: a saver whose confidence hardly
        varies may answer much that the base knows better, which shows in ``accuracy``.

    Raises:
        UsageError: without images, or if the models disagree on images or classes.
    """
    expect_alike(logits, macs, labels)
    rows = []
    for base in logits if bases is None else bases:
        rows.append(_row(base, "", 1.0, logits, macs, labels))
        for saver in logits:
            if macs[saver] < macs[base]:
                threshold = saver_threshold(logits[saver], logits[base], labels)
                rows.append(_row(base, saver, threshold, logits, macs, labels))
    table = pd.DataFrame(rows)
    order = ["base", "saved", "accuracy"]
    return table.sort_values(order, ascending=[True, False, False], ignore_index=True)


def expect_alike(logits: Mapping[str, Tensor], macs: Mapping[str, float], labels: Tensor) -> None:
    """Refuse models that cannot be ranked against each other.

    Raises:
        UsageError: without images, or if the models disagree on images or classes.
    """
    shapes = {name: tuple(found.shape) for name, found in logits.items()}
    if len(set(shapes.values())) != 1 or not len(labels):
        raise UsageError(
            f"logits {shapes} for {len(labels)} labels: give models of the same classes, their "
            "logits on the same held-out images, at least one"
        )
    if len(labels) != len(next(iter(logits.values()))) or logits.keys() - macs.keys():
        raise UsageError(
            f"{len(labels)} labels, MACs of {[*macs]} for logits {shapes}: give one label per "
            "image, and the MACs of every model"
        )


def _looked(
    models: Mapping[str, nn.Module], images: Tensor
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Logits (B, classes) and MACs of one image, of every model."""
    macs = {name: float(count_macs(model.eval(), images[:1])) for name, model in models.items()}
    with torch.no_grad():
        logits = {
            name: torch.cat([model(part) for part in images.split(BATCH)])
            for name, model in models.items()
        }
    return logits, macs


def _cascade(
    models: Mapping[str, nn.Module], row: pd.Series, images: Tensor, **settings: Any
) -> TinySaver | None:
    """The pair of a row; None where it is the base alone."""
    if not row.saver:
        return None
    shape = tuple(images.shape[1:])
    return TinySaver(models[row.saver], models[row.base], row.threshold, shape, **settings)


def _mean_macs(victim: TinySaver, images: Tensor) -> float:
    with torch.no_grad():
        spent = [victim.trace(part).macs.sum() for part in images.split(BATCH)]
    return (sum(spent) / len(images)).item()


def _row(
    base: str,
    saver: str,
    threshold: float,
    logits: Mapping[str, Tensor],
    macs: Mapping[str, float],
    labels: Tensor,
) -> dict[str, Any]:
    base_right = logits[base].argmax(1) == labels
    right, onward, spent = base_right, torch.ones_like(base_right), 0.0
    if saver:
        spent = macs[saver]
        onward = Confidence(threshold).go_on(logits[saver][:, None])
        right = torch.where(onward, base_right, logits[saver].argmax(1) == labels)
    escalated = onward.double().mean().item()
    expected = spent + escalated * macs[base]
    return {
        "base": base,
        "saver": saver,
        "threshold": threshold,
        "exit_rate": 1 - escalated,
        "macs": expected,
        "saved": 1 - expected / macs[base],
        "accuracy": right.double().mean().item(),
        "base_accuracy": base_right.double().mean().item(),
    }
