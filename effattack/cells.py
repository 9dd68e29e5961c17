"""Cells: the unit of work that is run, stored and resumed.

A cell is one victim x attack x budget x seed x slice of the data. Its specification holds
everything that decides its rows; the hash of the specification names its file. A finished cell is
one Parquet file, written under another name and then renamed, so that no half of it is ever seen.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

import effattack
from effattack.errors import UsageError


@dataclass(frozen=True)
class CellSpec:
    """What decides the rows of a cell."""

    work: str
    """``"attack"``, or the clock of a timing cell."""
    victim: str
    victim_digest: str
    attack: str
    settings: str
    eps: float
    seed: int
    first: int
    last: int
    data_digest: str
    device: str
    threads: int
    code: str
    torch: str

    @property
    def key(self) -> str:
        """Hash of the specification: the name of the cell's file."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Store:
    """Finished cells in a folder, one Parquet file each.

    Raises:
        UsageError: if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"cannot write to {folder} ({error.strerror}): give another folder with --out"
            ) from error

    def read(self, spec: CellSpec) -> pd.DataFrame | None:
        """The rows of a finished cell; None if it must be run (unfinished or damaged)."""
        try:
            return pd.read_parquet(self._path(spec))
        except (OSError, ValueError):
            return None

    def write(self, spec: CellSpec, rows: pd.DataFrame) -> None:
        """Store a finished cell, all at once."""
        path = self._path(spec)
        draft = path.with_suffix(f".{os.getpid()}.draft")
        rows.to_parquet(draft, index=False)
        draft.replace(path)

    def _path(self, spec: CellSpec) -> Path:
        return self.folder / f"{spec.key}.parquet"


def data_digest(images: Tensor, labels: Tensor) -> str:
    """Hash of images (as 8-bit levels) and labels."""
    levels = (images.detach().cpu() * 255).round().to(torch.uint8).contiguous()
    digest = hashlib.sha256(levels.numpy().tobytes())
    digest.update(str(tuple(levels.shape)).encode())
    digest.update(labels.detach().cpu().long().numpy().tobytes())
    return digest.hexdigest()[:16]


def victim_digest(victim: nn.Module) -> str:
    """Hash of a victim's weights, settings and source code.

    Settings are the plain attributes (numbers, strings, containers and policies of them) of the
    victim and its submodules; training mode does not count.
    """
    digest = hashlib.sha256()
    for name, module in victim.named_modules():
        digest.update(f"{name}:{type(module).__module__}.{type(module).__qualname__}".encode())
        settings = {k: v for k, v in vars(module).items() if k != "training" and k[0] != "_"}
        digest.update(repr(sorted(_plain(settings))).encode())
    for name, tensor in victim.state_dict(keep_vars=False).items():
        digest.update(name.encode())
        if isinstance(tensor, Tensor):
            digest.update(_bytes(tensor))
    digest.update(_source(type(victim)).encode())
    return digest.hexdigest()[:16]


def _plain(settings: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """Attributes that are data: plain values as they are, other objects by their attributes."""
    for key, value in settings.items():
        if value is None or isinstance(value, bool | int | float | str | tuple | list | dict | set):
            yield key, repr(value)
        elif not isinstance(value, Tensor | nn.Module) and hasattr(value, "__dict__"):
            yield key, f"{type(value).__qualname__}{sorted(_plain(vars(value)))}"


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.dequantize() if type(tensor) is not Tensor else tensor
    return plain.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _source(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return ""


@cache
def code_version() -> str:
    """The version of effattack and a hash of its sources, so that edited code runs cells again."""
    root = Path(effattack.__file__).parent
    digest = hashlib.sha256()
    for pattern in ("*.py", "attacks/*.py", "measure/*.py", "models_zoo/**/*.py"):
        for file in sorted(root.glob(pattern)):
            digest.update(file.read_bytes())
    return f"{effattack.__version__}+{digest.hexdigest()[:12]}"
