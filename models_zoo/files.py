"""Weights (safetensors, half precision) and cards (JSON) of the zoo's trained victims."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from effattack.errors import UsageError

WEIGHTS = Path(__file__).parent / "weights"
CARDS = Path(__file__).parent / "cards"

M = TypeVar("M", bound=nn.Module)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict, floats in half precision."""
    state = {
        key: value.detach().cpu().half() if value.is_floating_point() else value.detach().cpu()
        for key, value in model.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    path.with_suffix(".sha256").write_text(_sha256(path) + "\n", encoding="utf-8")


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill the model from a safetensors file; nothing is unpickled.

    Raises:
        UsageError: if the file is missing, damaged, or belongs to another model.
    """
    try:
        if _sha256(path) != path.with_suffix(".sha256").read_text(encoding="utf-8").strip():
            raise OSError("its hash is not the recorded one")
        state = load_file(path)
    except FileNotFoundError as error:
        raise UsageError(
            f"weights {path} are missing: reinstall effattack, or train them with "
            f"python -m effattack.models_zoo.train {path.stem}"
        ) from error
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"weights {path} cannot be read ({error}): the file is damaged; reinstall effattack, "
            f"or train it again with python -m effattack.models_zoo.train {path.stem}"
        ) from error
    expected = model.state_dict()
    missing, surplus = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected)
    if missing or surplus:
        raise UsageError(f"weights {path} do not fit: missing {missing}, surplus {surplus}")
    model.load_state_dict({k: v.to(expected[k].dtype) for k, v in state.items()})


def with_weights(model: M, name: str, trained: bool = True) -> M:
    """The model in eval mode, filled with the zoo's weights of that name unless untrained."""
    if trained:
        load_weights(model, WEIGHTS / f"{name}.safetensors")
    return model.eval()


def stored_threshold(name: str, trained: bool = True) -> Any:
    """The threshold that the victim's card records; 1 for a victim yet to be trained."""
    return read_card(name)["threshold"] if trained else 1.0


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_card(name: str) -> dict[str, Any]:
    """The card of a trained victim."""
    return json.loads((CARDS / f"{name}.json").read_text(encoding="utf-8"))


def write_card(name: str, card: dict[str, Any]) -> None:
    """Store a card, readable by people and code."""
    CARDS.mkdir(exist_ok=True)
    (CARDS / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
