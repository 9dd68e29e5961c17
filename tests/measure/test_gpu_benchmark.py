"""``benchmarks/gpu.py`` on small victims and without a GPU: what it writes, and what it says."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from math import isnan
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from effattack import Opaque
from effattack.models_zoo.preprocessing import Preprocess
from effattack.victim import Victim

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The script as a module; its own folder is on the path when it runs."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


@pytest.mark.slow
def test_without_a_gpu_it_says_so_and_how_to_try_it() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stderr.startswith("gpu.py: nothing is measured: ")
    assert "--device cpu" in done.stderr


@pytest.mark.slow
def test_frames_and_table_of_a_victim(gpu, ats: Victim, digit_images, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    twin = Opaque(nn.Sequential(Preprocess(ats.mean, ats.std), ats.vit), ats.input_shape)
    case = gpu.Case("ATS, digits", "trained", ats, twin, digit_images)
    options = Namespace(batch=[1, 3, 100], batches=2, seconds=0.0)
    frames = gpu.measured(case, torch.device("cpu"), options, None)
    assert set(frames) == {"latency", "summary"}
    lines, calls = frames["summary"], frames["latency"]
    assert lines.batch_size.tolist() == [1, 3]
    assert (lines.macs_ratio > 1).all()
    assert calls.groupby(["batch_size", "arm"]).size().tolist() == [2] * 4
    gpu.write(tmp_path / "ats", frames)
    gpu.write(tmp_path / "other", {"summary": lines.assign(victim="other")})
    text = gpu.table(tmp_path, "No energy: no counter.")
    assert text.count("| ATS, digits | token sparsification | trained |") == 2
    assert text.count("| other |") == 2
    assert "joules" not in text


def test_no_ratio_is_given_where_clean_differs_from_clean(gpu, ats: Victim, digit_images) -> None:  # type: ignore[no-untyped-def]
    def rows(arm: str, slower: float) -> pd.DataFrame:
        seconds = {"seconds_clean": [1.0] * 6, "seconds_attacked": [slower] * 6}
        return pd.DataFrame({"clock": "wall", "arm": arm, **seconds})

    case = gpu.Case("ATS", "random", ats, ats, digit_images)
    metered = pd.DataFrame(
        [
            (model, arm, joules / 2, 2.0, joules, 70.0)
            for model, arm, joules in [(ats.name, "noise", 3.0), (ats.name, "attacked", 4.0)]
        ],
        columns=["model", "arm", "energy_ratio", "joules_clean", "joules_attacked", "idle_watts"],
    )
    one = digit_images[:1]
    for disturbed, expected in ((1.0, 2.0), (1.1, None)):
        timed = pd.concat([rows("clean", disturbed), rows("attacked", 2.0)])
        line = gpu.summary(case, 1, timed, metered, one, one)
        assert line["macs_ratio"] == 1
        assert line["wall_aa"] == pytest.approx(disturbed)
        ratio = line["wall_ratio"]
        assert isnan(ratio) if expected is None else ratio == pytest.approx(expected)
    assert [line[f"twin_joules_{arm}"] for arm in ("clean", "noise", "attacked")] == [2, 3, 4]
