"""Looking at a victim, and leaving no trace on it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effattack.victim.contract import Victim
from effattack.victim.trace import Trace


@contextmanager
def undisturbed(victim: nn.Module) -> Iterator[None]:
    """Run with the victim in eval mode and its parameters frozen; then put everything back.

    Restores training mode, ``requires_grad`` and gradients of every parameter, and the global
    random state of Python, NumPy and torch; also after an exception. Gradients are enabled inside,
    whether the caller runs under ``no_grad``, ``inference_mode`` or neither.
    """
    modes = {m: m.training for m in victim.modules() if hasattr(m, "training")}
    made_in_inference_mode = _normal_tensors(victim)
    parameters = [(p, p.requires_grad, p.grad) for p in victim.parameters()]
    python, legacy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        victim.eval()
        for parameter, _, _ in parameters:
            if parameter.requires_grad:
                parameter.requires_grad_(False)
        with (
            torch.random.fork_rng(devices=devices),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, required, grad in parameters:
            if parameter.requires_grad != required:
                parameter.requires_grad_(required)
            parameter.grad = grad
        for held, name, tensor in made_in_inference_mode:
            held[name] = tensor
        random.setstate(python)
        np.random.set_state(legacy)


def _normal_tensors(victim: nn.Module) -> list[tuple[dict[str, Any], str, Tensor]]:
    """Put copies in place of weights made under inference mode, which gradients cannot pass.

    Returns what stood where.
    """
    replaced = []
    for module in victim.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and tensor.is_inference():
                    replaced.append((held, name, tensor))
    with torch.inference_mode(False):
        for held, name, tensor in replaced:
            plain = tensor.clone()
            frozen = isinstance(tensor, nn.Parameter)
            held[name] = nn.Parameter(plain, requires_grad=False) if frozen else plain
    return replaced


def glance(victim: Victim) -> Trace:
    """The trace of one input that means nothing, without gradients: what a victim shows."""
    with undisturbed(victim), torch.no_grad():
        return victim.trace(victim.example(1))


def seed_global_state(seed: int) -> None:
    """Seed what foreign code may draw from: the global generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
