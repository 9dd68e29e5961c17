"""What all tests share: one thread, victims by name, a few images."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from effattack.models_zoo.digits import digits
from effattack.victim import Victim

pytest_plugins = ["pytester"]

HERE = str(Path(__file__).parent)
if HERE not in sys.path:  # makes toys.py importable, whatever import mode pytest runs in
    sys.path.insert(0, HERE)

from toys import embedded, embedded_or_skip  # noqa: E402

torch.set_num_threads(1)
os.environ["EFFATTACK_DEVICE_OWNED"] = "1"  # no test asserts on real time: xdist may run them all


@pytest.fixture
def early_exit() -> Victim:
    """Embedded early exits, shared by all tests: leave it as it was."""
    return embedded("digits_cnn_early_exit")


@pytest.fixture
def ats() -> Victim:
    """Embedded ATS, shared by all tests: leave it as it was."""
    return embedded("digits_vit_ats")


@pytest.fixture
def int8() -> Victim:
    """The embedded int8 victim, shared by all tests: leave it as it was."""
    return embedded_or_skip("digits_vit_int8")


@pytest.fixture
def digit_images() -> Tensor:
    """Twelve test images of digits."""
    return digits("test")[0][:12]


@pytest.fixture
def digit_labels() -> Tensor:
    """Their labels."""
    return digits("test")[1][:12]


@pytest.fixture
def in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a project needs for its workers to find the toys."""
    pytest.importorskip("xdist")
    inherited = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{inherited}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
