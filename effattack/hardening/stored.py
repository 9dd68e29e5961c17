"""A hardened victim as a folder: ``weights.safetensors``, ``card.json``, and ``card.md``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from effattack.errors import UsageError
from effattack.hardening.card import Card
from effattack.hardening.engine import Hardened
from effattack.hardening.thresholds import rule_of
from effattack.results.files import replaced, writable
from effattack.victim import Victim

WEIGHTS, CARD, PAGE = "weights.safetensors", "card.json", "card.md"


def save(hardened: Hardened, folder: str | Path) -> Path:
    """Write weights and card; the folder.

    Raises:
        UsageError: if it cannot be written, or a state is no tensor.
    """
    place = writable(Path(folder))
    if other := [key for key, value in hardened.state.items() if not isinstance(value, Tensor)]:
        raise UsageError(f"{other[0]} of {hardened.card.victim} is no tensor, and is not stored")
    state = {key: value.detach().cpu().clone() for key, value in hardened.state.items()}
    weights = tensor_bytes({key: value.contiguous() for key, value in state.items()})
    card = {**hardened.card.as_dict(), "sha256": hashlib.sha256(weights).hexdigest()}
    replaced(place / WEIGHTS, weights)
    replaced(place / CARD, (json.dumps(card, indent=2) + "\n").encode())
    replaced(place / PAGE, str(hardened.card).encode())
    return place


def load(victim: Victim, folder: str | Path) -> Victim:
    """The victim, filled with hardened weights and thresholds; nothing is unpickled.

    Args:
        victim: as it was made when it was hardened: its weights are replaced.
        folder: that :func:`save`, or ``effattack harden --out``, wrote.

    Raises:
        UsageError: if files are missing, damaged, or belong to another victim.
    """
    place = Path(folder)
    card, weights = _read(place)
    expected = victim.state_dict()
    names = expected.keys() ^ weights.keys()
    shapes = {k for k in expected.keys() & weights.keys() if expected[k].shape != weights[k].shape}
    if names or shapes:
        raise UsageError(
            f"{place / WEIGHTS} does not fit {victim.name}: {', '.join(sorted(names | shapes)[:4])}"
            "; it was hardened as another network"
        )
    with torch.no_grad():
        victim.load_state_dict({key: weights[key].to(expected[key].dtype) for key in expected})
    rule = rule_of(victim)
    if rule is not None and card.thresholds is not None:
        rule.thresholds = card.thresholds
    return victim.eval()


def read_card(folder: str | Path) -> Card:
    """The card of a folder.

    Raises:
        UsageError: if it is missing or damaged.
    """
    return _read(Path(folder))[0]


def _read(place: Path) -> tuple[Card, dict[str, Tensor]]:
    try:
        plain = json.loads((place / CARD).read_text(encoding="utf-8"))
        digest = plain.pop("sha256")
        card, data = Card.of(plain), (place / WEIGHTS).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise OSError("its hash is not the recorded one")
        return card, read_tensors(data)
    except FileNotFoundError as error:
        raise UsageError(
            f"{place} holds no hardened victim ({Path(error.filename).name} is missing): give the "
            "folder that effattack harden --out wrote"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UsageError(
            f"{place} cannot be read as a hardened victim ({error}): harden it again with "
            "effattack harden"
        ) from error
