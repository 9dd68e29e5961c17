"""Frames as an evaluation stores them, made up but plausible: no model, no torch."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from effattack.results.decisions import opened, to_text
from effattack.results.frame import COLUMNS
from effattack.results.scores import score_table

EPS = 8 / 255
SHAPE = (3, 32, 32)
CLOCK = "wall"


class Fake(NamedTuple):
    """One made-up victim: costs in MACs, and how far each attack moves it (0 to 1)."""

    family: str
    levels: tuple[float, ...]
    dense: float
    clean_share: float
    moves: dict[str, float]
    constant: bool = False


VICTIMS = {
    "digits_vit_ats": Fake(
        "token sparsification",
        tuple(np.linspace(5.2e6, 9.61e6, 60)),
        9.44e6,
        0.16,
        {"Slowdown": 0.70, "DeSparsify": 0.63, "noise": 0.02, "uniform": 0.35, "pgd": 0.12},
    ),
    "digits_cnn_early_exit": Fake(
        "early exit",
        (0.62e6, 1.31e6, 2.45e6, 3.42e6),
        3.38e6,
        0.08,
        {"Slowdown": 0.93, "DeepSloth": 0.71, "noise": 0.01, "uniform": 0.97, "pgd": 0.22},
    ),
    "digits_tinysaver_cascade": Fake(
        "cascade",
        (0.21e6, 4.58e6),
        4.37e6,
        0.09,
        {"Slowdown": 0.96, "DeepSloth": 0.88, "noise": 0.015, "uniform": 1.0, "pgd": 0.31},
    ),
    "digits_vit_int8": Fake(
        "quantization", (9.44e6,), 9.44e6, 0.0, {"noise": 0, "uniform": 0, "pgd": 0}, True
    ),
}
ACCURACY = ("torchattacks.PGD", "foolbox.LinfPGD")
CONTROLS = ("clean", "noise", "uniform")


def kind_of(attack: str) -> str:
    return "accuracy" if attack in ACCURACY else "control" if attack in CONTROLS else "compute"


def budgets_of(attack: str, budgets: tuple[float, ...]) -> tuple[float, ...]:
    return {"clean": (0.0,), "uniform": (1.0,)}.get(attack, budgets)


def gates_of(fake: Fake) -> dict[str, int]:
    """Gate name -> units."""
    if fake.family == "token sparsification":
        return {"blocks.1.tokens": 16, "blocks.2.tokens": 16}
    return {} if fake.constant else {f"exits.{i}": 1 for i in range(len(fake.levels) - 1)}


def decided(fake: Fake, level: int) -> dict[str, np.ndarray]:
    """Masks of an image that costs the given level."""
    share = level / max(1, len(fake.levels) - 1)
    if fake.family == "token sparsification":
        return {gate: np.arange(n) < round(n * share) for gate, n in gates_of(fake).items()}
    return {gate: np.array([i < level]) for i, gate in enumerate(gates_of(fake))}


def digits(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3, 32, 32) uint8: bright rings and strokes on black, enough to look at."""
    y, x = np.mgrid[0:32, 0:32]
    images = []
    for index in range(count):
        cx, cy = rng.normal(16, 1.5, 2)
        radius, width = rng.uniform(6, 10), rng.uniform(2, 3.5)
        away = np.hypot((x - cx) * rng.uniform(1, 1.6), y - cy)
        shape = np.exp(-(((away - radius) / width) ** 2))
        if index % 3 == 0:
            shape = np.maximum(shape, np.exp(-(((x - cx) / 2) ** 2)) * (abs(y - cy) < 11))
        images.append(np.repeat((240 * shape)[None], 3, 0))
    return np.round(images).astype(np.uint8)


def cell(
    name: str, fake: Fake, attack: str, seed: int, count: int, eps: float = EPS
) -> pd.DataFrame:
    """The rows of one victim under one attack."""
    base = np.random.default_rng(zlib.crc32(f"{name}{seed}".encode()))
    rng = np.random.default_rng(zlib.crc32(f"{name}{attack}{seed}".encode()))
    pictures = digits(count, np.random.default_rng(7))
    levels = np.array(fake.levels)
    label = np.arange(count) % 10
    clean_prediction = np.where(base.random(count) < 0.97, label, (label + 1) % 10)
    top = len(levels) - 1
    place = base.beta(8 * fake.clean_share + 0.01, 8 * (1 - fake.clean_share), count)
    clean_index = np.clip(np.floor(place * top + base.random(count)), 0, top).astype(int)
    move = fake.moves.get("pgd" if attack in ACCURACY else attack, 0.0) * min(1, eps / EPS)
    spread = rng.normal(move, 0.15 if attack != "clean" and not fake.constant else 0, count)
    goal = clean_index + np.clip(spread, -0.2, 1) * (top - clean_index)
    index = np.clip(np.floor(goal + (rng.random(count) if move else 0)), 0, top).astype(int)
    flips = {"compute": 0.08, "accuracy": 0.86, "control": 0.01}[kind_of(attack)]
    flips = {"clean": 0.0, "uniform": 0.9}.get(attack, flips)
    wrong = (clean_prediction + 1 + rng.integers(0, 8, count)) % 10
    prediction = np.where(rng.random(count) < flips, wrong, clean_prediction)
    if attack == "clean":
        change = np.zeros((count, *SHAPE))
    elif attack == "uniform":
        change = np.clip(rng.normal(127, 2, (count, *SHAPE)), 0, 255).round() - pictures
    elif attack == "noise":
        change = rng.integers(-8, 9, (count, *SHAPE))
    else:
        waves = np.sin(np.add.outer(rng.uniform(0, 9, (count, 3)), np.arange(32) / 2.5))
        change = 8 * np.sign(waves[..., None, :] * waves[..., :, None] + rng.normal(0, 0.4, SHAPE))
    attacked = np.clip(pictures + change, 0, 255).astype(np.uint8)
    real = (attacked.astype(float) - pictures) / 255
    timed = kind_of(attack) == "compute" or attack == "noise"
    clean_seconds = 1e-3 * (0.4 + 0.6 * levels[clean_index] / levels[-1])
    seconds = 1e-3 * (0.4 + 0.6 * levels[index] / levels[-1]) * rng.lognormal(0, 0.1, count)
    return pd.DataFrame(
        {
            "victim": name,
            "family": fake.family,
            "attack": attack,
            "kind": kind_of(attack),
            "threat": {"clean": "none", "uniform": "box"}.get(attack, "linf"),
            "eps": eps,
            "seed": seed,
            "sample": np.arange(count),
            "label": label,
            "prediction": prediction,
            "clean_prediction": clean_prediction,
            "macs": levels[index],
            "clean_macs": levels[clean_index],
            "dense_macs": fake.dense,
            "max_macs": levels[-1],
            "constant": fake.constant,
            "knife_edge": rng.random(count) < 0.004,
            "linf": np.abs(real).max((1, 2, 3)),
            "l2": np.sqrt((real**2).sum((1, 2, 3))),
            "seconds": seconds if timed else np.nan,
            "clean_seconds": clean_seconds if timed else np.nan,
            "batch_size": 1.0 if timed else np.nan,
            "clock": CLOCK if timed else None,
            "event_seconds": np.nan,
            "clean_event_seconds": np.nan,
            "environment": None,
            "joules": np.nan,
            "clean_joules": np.nan,
            "idle_watts": np.nan,
            "modelled_joules": np.nan,
            "clean_modelled_joules": np.nan,
            "node": "bench" if timed else None,
            "device": "AMD EPYC 7R13" if timed else None,
            "opened": [opened(decided(fake, level)) for level in index],
            "decisions": [
                to_text(decided(fake, level)) if i < 8 else None for i, level in enumerate(index)
            ],
            "image": [a.tobytes() if i < 8 else None for i, a in enumerate(attacked)],
        }
    )


def samples(
    count: int = 100, seeds: tuple[int, ...] = (0,), budgets: tuple[float, ...] = (EPS,)
) -> pd.DataFrame:
    """One row per victim, attack, budget, seed and image."""
    return pd.concat(
        [
            cell(name, fake, attack, seed, count, eps)
            for name, fake in VICTIMS.items()
            for attack in (*CONTROLS, *[a for a in fake.moves if a[0].isupper()], *ACCURACY)
            for eps in budgets_of(attack, budgets)
            for seed in seeds
        ],
        ignore_index=True,
    ).reindex(columns=COLUMNS)


def scores(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per victim, attack and eps, as an evaluation makes them."""
    return score_table(rows)


def meta() -> dict[str, Any]:
    """What goes with the frames."""
    aa = {"aa_low": 0.991, "aa_high": 1.008, "fired": False}
    checks = [
        ("audit", True, "declared MACs equal executed MACs on 8 of 8 images"),
        ("determinism", True, "two runs gave the same MACs and predictions"),
        ("zero gradient", True, "the gradient of every gate reaches the pixels"),
        ("stronger than noise", True, "every compute attack beats noise in its budget"),
        ("success rises with budget", None, "only one budget was scored"),
    ]
    no_gates = "digits_vit_int8 has no gates: its compute cannot depend on the input"
    return {
        "schema": 2,
        "command": "effattack run --samples 100 --out effattack-report",
        "created": "2026-11-22T08:12:31+00:00",
        "versions": {"effattack": "0.1.0", "python": "3.11.7", "torch": "2.15.0+cu132"},
        "environment": {
            "device": "cpu",
            "platform": "Linux-6.8.0-x86_64-with-glibc2.36",
            "threads": 2,
            "cpu": "AMD EPYC 7R13",
        },
        "seeds": [0],
        "data": "scikit-learn digits, 100 held-out images, 3 × 32 × 32",
        "victims": {
            name: {
                "family": fake.family,
                "input_shape": list(SHAPE),
                "num_classes": 10,
                "max_macs": fake.levels[-1],
                "dense_macs": fake.dense,
            }
            for name, fake in VICTIMS.items()
        },
        "skipped": [
            {"victim": "digits_vit_int8", "attack": attack, "reason": no_gates}
            for attack in ("Slowdown", "DeepSloth", "DeSparsify")
        ]
        + [
            {
                "victim": "digits_vit_ats",
                "attack": "DeepSloth",
                "reason": "DeepSloth needs internal classifiers; digits_vit_ats has none",
            }
        ],
        "checks": [
            {"victim": name, "check": check, "passed": passed, "message": message}
            for name, fake in VICTIMS.items()
            for check, passed, message in (checks[:2] if fake.constant else checks)
        ],
        "energy": "no energy counter is reachable: RAPL needs read access to "
        "/sys/class/powercap, and there is no NVIDIA GPU",
        "latency": {
            **dict.fromkeys(VICTIMS, aa),
            "digits_tinysaver_cascade": {"aa_low": 1.012, "aa_high": 1.041, "fired": True},
        },
        "notes": ["12 images were rounded to the 8-bit grid (largest change 0.4/255)."],
    }
