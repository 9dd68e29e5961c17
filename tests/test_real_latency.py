"""How real systems are timed: in pairs, each kept as soon as it is."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import LinearSaver

ROOT = Path(__file__).parents[1]


@pytest.fixture
def real_latency(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, under a clock that reads the sum of the images of a call."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import real_latency

    class Sums:
        name = "sums"

        def time(self, call: partial[Tensor]) -> float:
            call()
            return float(call.args[0].sum())

    monkeypatch.setattr(real_latency, "CpuTimeClock", Sums)
    monkeypatch.setattr(real_latency, "SECONDS", 0.0)
    return real_latency


def test_pairs_are_timed_and_kept_one_by_one(
    real_latency: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    victim, made = LinearSaver(), []

    def pair(number: int) -> tuple[Tensor, Tensor]:
        made.append(number)
        clean = torch.full((1, *victim.input_shape), 0.1)
        return clean, clean * (2 + number)

    def toy(_: Path | None) -> Any:
        return victim, (real_latency.Pair(str(n), partial(pair, n)) for n in range(9))

    monkeypatch.setitem(real_latency.SYSTEMS, "toy", toy)
    file = tmp_path / "rows.jsonl"
    real_latency.run("toy", None, 3, file)
    real_latency.run("toy", None, 7, file)
    assert made == [0, 1, 2, 3, 4, 5, 6]
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    ratios = [line["seconds_attacked"] / line["seconds_clean"] for line in lines]
    assert ratios == pytest.approx([2, 3, 4, 5, 6, 7, 8])
    assert all(line["clean_beside_clean"] == 1 for line in lines)
    assert real_latency.ratio(lines, "toy") == pytest.approx((5, 2, 8))
    assert real_latency.table(lines)["attacked / clean"].item() == "×5.00 [2.00, 8.00]"
