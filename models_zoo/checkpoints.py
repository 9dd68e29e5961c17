"""Checkpoint files of official implementations: read without running anything in them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from effattack.errors import UsageError
from effattack.models_zoo.official import official_names

KEYS = ("state_dict_ema", "state_dict", "model")
"""Under which official training scripts keep the weights, the averaged ones first."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file of ``torch.save``, for ``SomeVictim.from_official``.

    Only tensors and plain values are read (``weights_only=True``), and the command line arguments
    (``argparse.Namespace``) that DeiT's training script and its descendants store beside the
    weights. Of several state dicts, the first of ``KEYS`` is taken, as official evaluation does;
    the prefix that ``nn.DataParallel`` puts before every name is dropped.

    Raises:
        UsageError: if the file is missing, is no such file, or holds no state dict.
    """
    try:
        with torch.serialization.safe_globals([Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UsageError(
            f"checkpoint {path} is missing: docs/checkpoints.md says where to get it"
        ) from error
    except (UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise UsageError(
            f"checkpoint {path} cannot be read as tensors and plain values ({_reason(error)}): use "
            "the file as published, unpacked"
        ) from error
    entry = next((found[key] for key in KEYS if _has(found, key)), found)
    if not _is_state_dict(entry):
        raise UsageError(
            f"checkpoint {path} holds no state dict, neither at its top nor under "
            f"{', '.join(KEYS)}: save model.state_dict()"
        )
    return official_names(entry)


def _has(found: Any, key: str) -> bool:
    return isinstance(found, Mapping) and isinstance(found.get(key), Mapping)


def _is_state_dict(found: Any) -> bool:
    tensors = isinstance(found, Mapping) and all(isinstance(t, Tensor) for t in found.values())
    return tensors and bool(found)


def _reason(error: Exception) -> str:
    """torch's advice is many lines long: what it objects to, or the first line."""
    lines = [line.strip() for line in str(error).splitlines() if "Unsupported" in line]
    return (lines or str(error).strip().splitlines() or [type(error).__name__])[0]
