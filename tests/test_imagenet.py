"""The table of the real victims, where images and weights are at hand; and what is said if not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from toys import import_or_skip

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "imagenet.py"
DATA, WEIGHTS = "EFFATTACK_IMAGENET_DATA", "EFFATTACK_IMAGENET_WEIGHTS"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_without_data_it_says_how_to_get_them(tmp_path: Path) -> None:
    done = run()
    assert done.returncode == 2
    assert "labels.csv" in done.stderr
    assert "nips-2017-adversarial-learning-development-set" in done.stderr
    assert f"{tmp_path} holds no labels.csv" in run("--data", str(tmp_path)).stderr


@pytest.mark.skipif(
    not (os.environ.get(DATA) and os.environ.get(WEIGHTS)),
    reason=f"the real victims need ImageNet-compatible images and weights: point {DATA} and "
    f"{WEIGHTS} at their folders (benchmarks/imagenet.py says where to get them)",
)
def test_table(tmp_path: Path) -> None:
    import_or_skip("torchao.quantization")
    import_or_skip("bitsandbytes")
    folders = ("--data", os.environ[DATA], "--weights", os.environ[WEIGHTS])
    done = run(*folders, "--images", "2", "--out", str(tmp_path / "table.md"))
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table.md").read_text()
    assert table in done.stdout
    assert re.search(r"2 images; millions of MACs per image; .+ thread\(s\), torch \d", table)
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if "%" in line]
    figures = {name: columns for name, *columns in rows}
    assert len(figures) == 16
    for mechanism in ("ATS", "ToMe", "EViT", "int8_dynamic", "LLM.int8()", "TinySaver"):
        assert any(name.startswith(mechanism) for name in figures)
    assert figures["ViT-Tiny, dense"][1:] == ["1,253.7", "1,253.7", "–", "–"]
    assert figures["ToMe, ViT-Tiny, r = 8"][1:] == ["929.0", "929.0", "929.0", "1,253.7"]
