"""What images of one size cost whatever they show: counted once, on a grey image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from effattack.victim import Victim

Size = TypeVar("Size")

_known: WeakKeyDictionary[Victim, dict[tuple[int, ...], object]] = WeakKeyDictionary()


def once(victim: Victim, images: Tensor, count: Callable[[Tensor], Size]) -> Size:
    """What ``count`` says of a grey image (1, C, H, W) as large as these; asked once per size.

    It is kept beside the victim, whose digest it must not move.
    """
    known = _known.setdefault(victim, {})
    if (shape := tuple(images.shape[1:])) not in known:
        grey = torch.full((1, *shape), 0.5, device=victim.device, dtype=victim.dtype)
        with torch.no_grad():
            known[shape] = count(grey)
    return cast(Size, known[shape])
