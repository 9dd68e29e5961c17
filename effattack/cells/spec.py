"""Cells: the unit of work that is run, stored and resumed.

A cell is one victim x attack x budget x seed x slice of the data. Its specification holds
everything that decides its rows; the hash of the specification names its file in the store.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import effattack


@dataclass(frozen=True)
class CellSpec:
    """What decides the rows of a cell."""

    work: str
    """``"contract"``, ``"attack"``, or what is timed on which device."""
    victim: str
    victim_digest: str
    attack: str
    settings: str
    eps: float
    seed: int
    first: int
    last: int
    data_digest: str
    kept: int
    """Of how many images, from the first on, the attacked pixels are stored."""
    device: str
    threads: int
    code: str
    torch: str

    @property
    def key(self) -> str:
        """Hash of the specification: the name of the cell's file."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def data_digest(images: Tensor, labels: Tensor) -> str:
    """Hash of images (as 8-bit levels) and labels."""
    levels = (images.detach().cpu() * 255).round().to(torch.uint8).contiguous()
    digest = hashlib.sha256(levels.numpy().tobytes())
    digest.update(str(tuple(levels.shape)).encode())
    digest.update(labels.detach().cpu().long().numpy().tobytes())
    return digest.hexdigest()[:16]


FACES = ("cli", "pytest_plugin", "reporting", "suites")
"""What only shows what was found: the rest of effattack decides rows, or may."""


@cache
def code_version() -> str:
    """The version of effattack and a hash of its sources, so that edited code runs cells again."""
    root = Path(effattack.__file__).parent
    digest = hashlib.sha256()
    for folder, inner, files in os.walk(root, followlinks=True):
        inner[:] = sorted(name for name in inner if name not in (*FACES, "__pycache__"))
        for name in sorted(files):
            if name.endswith(".py"):
                digest.update(name.encode() + (Path(folder) / name).read_bytes())
    return f"{effattack.__version__}+{digest.hexdigest()[:12]}"
