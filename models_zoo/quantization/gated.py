"""Quantized victims that decide: a gated victim of the zoo, its layers in few bits.

Gates, thresholds and costs stay those of the float victim; what they decide on is rounded. So the
decisions of both can differ, on clean inputs already. In ``trace`` every layer gives the values of
its quantized kernel and passes the gradient straight through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from effattack.domains import Pixels
from effattack.errors import UsageError, unknown_name
from effattack.models_zoo.cascade.cascade import Cascade
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.quantization.followed import FollowedATS
from effattack.models_zoo.quantization.quantized import (
    SCHEMES,
    Scheme,
    quantize,
    quantized_linears,
    straight_through,
)
from effattack.models_zoo.quantization.static_int8 import stays_on_the_cpu
from effattack.models_zoo.quantization.static_parts import in_static_int8
from effattack.models_zoo.token_sparsification.ats import ATS
from effattack.victim import Trace, Victim
from effattack.victim.structure import Exits, Models


class GatedInFewBits(Victim):
    """Two copies of a gated victim in few bits: one is deployed, the other has gradients.

    Args:
        victim: the float victim, of which nothing is changed.
        deployed: the copy that answers.
        traced: the copy that tells its decisions.
        settings: ``name``, ``data``.
    """

    def __init__(self, victim: Victim, deployed: Victim, traced: Victim, **settings: Any) -> None:
        super().__init__(
            family=victim.family,
            domain=victim.domain,
            task=victim.task,
            max_macs=victim.max_macs,
            dense_macs=victim.dense_macs,
            **settings,
        )
        self.model, self._traced = deployed, traced
        self._borrowed = (victim,)
        self.eval()  # new graph modules are in training mode

    @property
    def float_victim(self) -> Victim:
        """What it was made of, which attacks may be transferred from; no part of this."""
        return self._borrowed[0]

    def forward(self, images: Tensor) -> Tensor:
        return self.model.forward(images)

    def trace(self, images: Tensor) -> Trace:
        return self._traced.trace(images)


class QuantizedGates(GatedInFewBits):
    """A gated victim whose linear layers are quantized by torchao.

    Convolutions, and what decides, stay in floats. Activations are rounded by themselves in every
    row, so that no image sees its batch mates.

    Args:
        victim: an early exit, a cascade or an ATS victim in floats; copied where it stands.
        scheme: a name in ``SCHEMES``, or a scheme of your own.
        settings: ``data``.

    Raises:
        UsageError: without torchao, for a victim that has no linear layer or another mechanism, or
            for a scheme that this machine lacks.
    """

    def __init__(
        self,
        victim: Victim,
        *,
        scheme: str | Scheme = "int8_dynamic",
        name: str = "QuantizedGates",
        **settings: Any,
    ) -> None:
        if isinstance(scheme, str):
            if scheme not in SCHEMES:
                raise unknown_name("quantization scheme", scheme, SCHEMES)
            scheme = SCHEMES[scheme]
        deployed = quantize(in_step(victim), scheme, victim.input_shape)
        if not quantized_linears(deployed):
            raise UsageError(
                f"{victim.name} has no nn.Linear that the scheme quantizes: it would change nothing"
            )
        rounded = scheme.activation_bits is not None
        traced = straight_through(deployed) if rounded else deployed
        super().__init__(victim, deployed, traced, name=name, **settings)
        self.scheme = scheme


class StaticInt8Gates(GatedInFewBits):
    """A gated victim whose convolutions and linear layers run on oneDNN's int8 kernels.

    As :class:`~effattack.models_zoo.quantization.static_int8.StaticInt8`, part by part: stages and
    classifiers of early exits, models of a cascade, linear layers and patch embedding of a ViT.

    Args:
        victim: an early exit, a cascade or an ATS victim in floats; copied.
        calibration: (B, *input_shape) in [0, 1], held-out images that fix the ranges.
        settings: ``data``.

    Raises:
        UsageError: as :class:`StaticInt8`, or for a victim of another mechanism.
    """

    def __init__(
        self,
        victim: Victim,
        calibration: Tensor,
        *,
        name: str = "StaticInt8Gates",
        **settings: Any,
    ) -> None:
        Pixels(victim.input_shape).check(calibration)
        floats = in_step(victim)
        deployed, traced = in_static_int8(floats, parts(floats), calibration)
        super().__init__(victim, deployed, traced, name=name, **settings)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StaticInt8Gates:
        stays_on_the_cpu(self.name, fn)
        return super()._apply(fn, recurse)


def in_step(victim: Victim) -> Victim:
    """The victim in a form whose two paths take the same decisions where its layers round.

    Raises:
        UsageError: for a mechanism that has no such form here.
    """
    if type(victim) is ATS:
        return FollowedATS.of(victim)
    if isinstance(victim, EarlyExit | Cascade):
        return victim
    raise UsageError(
        f"{victim.name} is a {type(victim).__name__}: only early exits, cascades and ATS are "
        "quantized with their gates"
    )


def parts(victim: Victim) -> list[nn.Module]:
    """What is exported by itself, of a victim that :func:`in_step` admits."""
    made_of = victim.structure()
    if isinstance(made_of, Exits):
        return [*made_of.stages, *made_of.heads]
    if isinstance(made_of, Models):
        return [*made_of.models]
    return [m for m in victim.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
