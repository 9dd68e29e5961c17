"""Cells: the unit of work that is run, stored and resumed.

A cell is one victim x attack x budget x seed x slice of the data. Its specification holds
everything that decides its rows; the hash of the specification names its file in the store.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

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


def victim_digest(victim: nn.Module) -> str:
    """Hash of all that decides what a victim does: weights, buffers, settings and source code.

    Settings are the attributes of the victim and its submodules that hold data (numbers, strings,
    containers and policies of them, public or private); training mode does not count.
    """
    digest = hashlib.sha256()
    for name, module in victim.named_modules():
        own = {k: v for k, v in vars(module).items() if k not in _MACHINERY}
        digest.update(f"{name}:{describe(own)}".encode())
    tensors = {**dict(victim.named_parameters()), **dict(victim.named_buffers())}
    for name, value in {**victim.state_dict(), **tensors}.items():
        digest.update(f"{name}:{describe(value)}".encode())
    digest.update(sources(victim.modules()).encode())
    return digest.hexdigest()[:16]


def attack_digest(attack: object) -> str:
    """Hash of an attack's settings and source code; the victim has a digest of its own."""
    own = {key: value for key, value in vars(attack).items() if key != "victim"}
    return hash_text(describe(own) + sources([attack]))


_MACHINERY = set(vars(nn.Module()))
"""Attributes of every module: parameters, buffers, hooks, training mode."""


def describe(value: Any) -> str:
    """A text that is the same for the same data, in this process and in any other."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)
    if isinstance(value, Tensor):
        return f"{value.dtype}{tuple(value.shape)}{hashlib.sha256(_bytes(value)).hexdigest()}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{describe(k)}: {describe(v)}' for k, v in value.items())}}}"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(describe, value)))}}}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(describe, value))})"
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, nn.Module):
        return name
    if isinstance(value, fx.Graph):  # its nodes point at each other
        return str(value)
    if isinstance(value, type) or inspect.isroutine(value):
        held = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
        return f"{getattr(value, '__qualname__', name)}{hash_text(_source(value))}{describe(held)}"
    return f"{name}{describe(vars(value))}" if hasattr(value, "__dict__") else name


def sources(things: Iterable[object]) -> str:
    """Hash of the source code of the classes of some objects, torch's own left out."""
    classes = {cls for thing in things for cls in type(thing).__mro__}
    ours = [c for c in classes if c.__module__.partition(".")[0] not in ("torch", "builtins")]
    ordered = sorted(ours, key=lambda c: f"{c.__module__}.{c.__qualname__}")
    return hash_text("".join(f"{c.__qualname__}{_source(c)}" for c in ordered))


def hash_text(text: str) -> str:
    """A short hash."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.dequantize() if type(tensor) not in (Tensor, nn.Parameter) else tensor
    plain = plain.to_dense() if plain.is_mkldnn else plain
    return plain.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return ""


@cache
def code_version() -> str:
    """The version of effattack and a hash of its sources, so that edited code runs cells again."""
    root = Path(effattack.__file__).parent
    digest = hashlib.sha256()
    for pattern in ("*.py", "attacks/*.py", "threats/*.py", "measure/*.py", "models_zoo/**/*.py"):
        for file in sorted(root.glob(pattern)):
            digest.update(file.read_bytes())
    return f"{effattack.__version__}+{digest.hexdigest()[:12]}"
