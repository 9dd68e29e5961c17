"""LLM.int8(): int8 matrix products, and floating-point ones for the columns with outliers.

Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", NeurIPS 2022
(arXiv 2208.07339), through bitsandbytes. A column of activations in which any token reaches the
threshold is multiplied in floating point, on top of the int8 product over all columns.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from effattack.counting.macs import register
from effattack.errors import ContractError, UsageError, unknown_name
from effattack.models_zoo.quantization.probing import bit_operations, observed, probe, replaced
from effattack.models_zoo.quantization.quantized import optional
from effattack.victim import Gate, Trace, Victim
from effattack.victim.margins import bounded_margin


class OutlierColumns:
    """The policy, and bitsandbytes' own: a column is an outlier where |A| >= θ in any row.

    θ is rounded to float16, in which bitsandbytes compares.
    """

    scale = 0.05

    def __init__(self, threshold: float) -> None:
        rounded = torch.tensor(float(threshold)).half()
        if not (rounded > 0 and rounded.isfinite()):
            raise UsageError(f"threshold = {threshold}: use 0 < θ < 65504 (float16)")
        self.threshold = rounded.item()

    def outliers(self, peak: Tensor) -> Tensor:
        """Largest |A| of every column -> bool."""
        return peak.half() >= self.threshold

    def margin(self, peak: Tensor) -> Tensor:
        """Largest |A| of every column -> margin in [-1, 1], positive where it is an outlier.

        m / (scale + |m|) with m = |A| / θ - 1. The small scale lets an attack work on the columns
        next to the threshold; most columns are out of its reach.
        """
        return bounded_margin(peak / self.threshold - 1, self.scale, self.outliers(peak))


class LLMInt8(Victim):
    """Your own float model, its linear layers computed by LLM.int8().

    Outlier columns are shared by a whole batch: one image with outliers makes ``forward`` compute
    these columns for its batch mates, too. ``trace`` runs image by image, so its gates and MACs
    are those of batch 1, at which the victim is scored.

    One gate per use of a layer, ``blocks.3.mlp.fc1.columns`` (B, columns). The int8 product runs
    over all columns, outliers or not; each outlier adds rows x outputs MACs in floating point. So
    no MACs are saved: the dense model is the least, all columns outliers the most. Dequantizing
    the weight of the outlier columns multiplies no matrices and is not counted. The trace's ``aux``
    holds what entered each use of a layer, ``blocks.3.mlp.fc1.columns.inputs``
    (B, rows, columns).

    Args:
        model: any module (B, *input_shape) -> (B, classes) that uses the same layers on every
            image, its normalisation included; copied.
        input_shape: (C, H, W) of one image.
        threshold: θ; 6 in the paper.
        skip_modules: dotted names of layers, or of modules with all inside, that stay in floating
            point; by default the last linear layer used, the classifier.
        settings: ``data``.

    Raises:
        UsageError: without bitsandbytes, or for arguments that cannot be used.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, ...],
        *,
        threshold: float = 6.0,
        skip_modules: Collection[str] | None = None,
        name: str = "LLMInt8",
        **settings: Any,
    ) -> None:
        policy = OutlierColumns(threshold)
        probed = probe(model, input_shape)
        if skip_modules is None:
            skip_modules = [call.name for call in probed.calls[-1:]]
        chosen = _linears(model, skip_modules)
        calls = tuple(call for call in probed.calls if call.name in chosen)
        if not calls:
            raise UsageError(f"LLM.int8() changes nothing: no nn.Linear beside {[*skip_modules]}")
        super().__init__(
            name=name,
            family="quantization",
            input_shape=input_shape,
            num_classes=probed.classes,
            max_macs=probed.macs + sum(call.macs for call in calls),
            dense_macs=probed.macs,
            batch_coupled=True,
            **settings,
        )
        self.policy, self._calls = policy, calls
        self.quantized_macs = self.max_macs - self.dense_macs
        self._borrowed = (model,)
        model = copy.deepcopy(model)
        layers = {m: Int8Linear(m, policy) for n, m in model.named_modules() if n in chosen}
        self.model = replaced(model, layers)

    @property
    def float_model(self) -> nn.Module:
        """The user's own float model, which attacks may be transferred from; no part of this."""
        return self._borrowed[0]

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images) if len(images) else images.new_zeros(0, self.num_classes)

    def trace(self, images: Tensor) -> Trace:
        inputs: list[Tensor] = []
        logits = [images.new_zeros(0, self.num_classes)]
        with observed(self.model, (Int8Linear,), lambda _, __, x, ___: inputs.append(x)):
            logits += [self.model(image) for image in images.split(1) if len(image)]
        uses = len(self._calls)
        if len(inputs) != len(images) * uses:
            raise ContractError(f"{self.name}: the model must use the same layers on every image")
        gates: list[Gate] = []
        aux: dict[str, Tensor] = {}
        macs = images.new_full((len(images),), self.dense_macs, dtype=torch.float64)
        for k, call in enumerate(self._calls):
            empty = images.new_zeros(0, call.positions, call.inputs)
            entered = torch.cat([empty, *(x.flatten(0, -2)[None] for x in inputs[k::uses])])
            gate = self._gate(k, entered)
            gates.append(gate)
            aux[f"{gate.name}.inputs"] = entered
            macs = macs + gate.active.sum(1) * gate.cost
        return Trace(logits=torch.cat(logits), gates=tuple(gates), macs=macs, aux=aux)

    def _gate(self, k: int, entered: Tensor) -> Gate:
        """Of the k-th use of a layer, from its inputs (B, rows, columns)."""
        call = self._calls[k]
        again = [c.name for c in self._calls[:k]].count(call.name)
        peak = entered.abs().amax(1)
        return Gate(
            name=f"{call.name}.columns" + f".{again}" * bool(again),
            margin=self.policy.margin(peak),
            active=self.policy.outliers(peak),
            reached=torch.ones_like(peak, dtype=torch.bool),
            cost=float(call.positions * call.outputs),
        )

    def bit_operations(self, macs: Tensor) -> Tensor:
        """Executed MACs (B,) -> bit operations (B,): MACs x weight bits x activation bits."""
        return bit_operations(macs, self.quantized_macs, (8, 8), self.dtype)


def _linears(model: nn.Module, skip_modules: Collection[str]) -> set[str]:
    """Names of the linear layers outside the modules to skip."""
    modules = dict(model.named_modules())
    if unknown := [name for name in skip_modules if name not in modules]:
        raise unknown_name("module to skip", unknown[0], modules)
    skipped = {module for name in skip_modules for module in modules[name].modules()}
    return {n for n, m in modules.items() if type(m) is nn.Linear and m not in skipped}


class Int8Linear(nn.Module):
    """What ``bitsandbytes.nn.Linear8bitLt`` computes in eval mode, bit by bit.

    The same operators on the same int8 weight, without that module's hidden state: it can be moved
    to another device after its first use, and training mode does not switch the decomposition off.
    """

    def __init__(self, layer: nn.Linear, policy: OutlierColumns) -> None:
        super().__init__()
        quantize = _bitsandbytes().functional.int8_vectorwise_quant
        weight, scales, _ = quantize(layer.weight.detach().half().contiguous())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)
        self.bias = layer.bias
        self.threshold = policy.threshold

    def forward(self, x: Tensor) -> Tensor:
        state = _bitsandbytes().MatmulLtState(CB=self.weight, SCB=self.scales)
        state.threshold = self.threshold
        state.has_fp16_weights = state.is_training = False
        out = _bitsandbytes().matmul(x.flatten(0, -2), self.weight, bias=self.bias, state=state)
        return out.unflatten(0, x.shape[:-1])


@cache
def _bitsandbytes() -> Any:
    """bitsandbytes, which is not to warn of the float16 in its own algorithm at every call."""
    module = optional("bitsandbytes", quiet="bitsandbytes")
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(
        lambda record: "inputs will be cast" not in str(record.msg)
    )
    return module


def _mixed_matmul(a: Tensor, *rest: Any, **_: Any) -> int:
    """int8_mixed_scaled_mm: all columns in int8, the outlier columns once more in floats."""
    _quantized, weight, _scales, _weight_scales, outliers = rest[:5]
    columns = a.shape[1] + (0 if outliers is None else outliers.numel())
    return a.shape[0] * columns * weight.shape[0]


register("bitsandbytes.int8_mixed_scaled_mm", _mixed_matmul)
register("bitsandbytes.int8_vectorwise_quant", None)
