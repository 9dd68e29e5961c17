"""Static int8 for convolutions: ranges fixed on calibration images, int8 kernels on the CPU.

PyTorch 2 Export (PT2E) quantization by torchao: the model is exported to a graph, its rounding
fixed by the ranges seen on calibration images, and lowered to oneDNN's int8 kernels. The arithmetic
is that of Jacob et al., CVPR 2018 (arXiv 1712.05877).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from effattack.counting.macs import MacsCounter, register
from effattack.domains import Pixels
from effattack.errors import UsageError, first_line
from effattack.models_zoo.quantization.probing import ConstantVictim, bit_operations, probe
from effattack.models_zoo.quantization.quantized import optional

BATCH = 64
"""Calibration images at a time."""
NOISY = "torch.utils._pytree"
"""Logs a warning of its own at the import of torchao."""
UNLIMITED = {"recompile_limit": sys.maxsize, "accumulated_recompile_limit": sys.maxsize}
"""Exports of one process count as recompilations of one another, of which torch allows eight."""
LACKING = (
    "this machine lacks the int8 kernels of static int8: it needs an x86 CPU and a torch built "
    "with oneDNN"
)


class StaticInt8(ConstantVictim):
    """Your own float model with its convolutions and linear layers in int8, activations included.

    ``forward`` runs oneDNN's int8 kernels. ``trace`` runs the same graph with the rounding in
    floats, and the gradient straight through it (zero where a value leaves the calibrated range).
    There are no gates, and the MACs are constant. It stays on the CPU and cannot be copied: the
    weights are packed for this machine.

    Args:
        model: any module (B, *input_shape) -> (B, classes) that ``torch.export`` accepts, its
            normalisation included; copied.
        input_shape: (C, H, W) of one image.
        calibration: (B, *input_shape) in [0, 1], held-out images that fix the ranges.
        settings: ``data``.

    Attributes:
        quantized_macs: MACs of one image that int8 kernels execute.

    Raises:
        UsageError: without torchao, without int8 kernels for this machine, or for a model that
            cannot be exported or has nothing to quantize.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, ...],
        calibration: Tensor,
        *,
        name: str = "StaticInt8",
        **settings: Any,
    ) -> None:
        Pixels(input_shape).check(calibration)
        probed = probe(model, input_shape)
        rounded = calibrated(model, calibration)
        deployed = lowered(rounded, input_shape)
        super().__init__(deployed, model, probed, name=name, input_shape=input_shape, **settings)
        with torch.no_grad(), MacsCounter() as counter:
            self.model(torch.zeros(1, *input_shape))
        self.quantized_macs = sum(counter.by_operator[kernel] for kernel in KERNELS)
        if not self.quantized_macs:
            raise UsageError(f"{LACKING} (all layers stayed in floats)")
        self._traced = straight_through(rounded)
        self.eval()  # new graph modules are in training mode

    def differentiable(self, images: Tensor) -> Tensor:
        return self._traced(images)

    def bit_operations(self, macs: Tensor) -> Tensor:
        """Executed MACs (B,) -> bit operations (B,): MACs x weight bits x activation bits."""
        return bit_operations(macs, self.quantized_macs, (8, 8), self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StaticInt8:
        stays_on_the_cpu(self.name, fn)
        return super()._apply(fn, recurse)


def stays_on_the_cpu(name: str, fn: Callable[[Tensor], Tensor]) -> None:
    """Refuse what would move a victim of int8 kernels to another device.

    Raises:
        UsageError: naming the victim and the device.
    """
    if (device := fn(torch.empty(0)).device).type != "cpu":
        raise UsageError(f"{name} cannot move to {device}: its int8 kernels are the CPU's")


def calibrated(model: nn.Module, images: Tensor) -> fx.GraphModule:
    """The exported model with every rounding to int8 as an operator of its graph.

    Raises:
        UsageError: if torchao is not installed, or the model cannot be exported or has nothing to
            quantize.
    """
    pt2e = optional("torchao.quantization.pt2e.quantize_pt2e", quiet=NOISY)
    x86 = optional("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer", quiet=NOISY)
    model = copy.deepcopy(model).eval().requires_grad_(False).float().cpu()
    images = images.detach().float().cpu()
    blank = torch.zeros(2, *images.shape[1:])
    try:
        with torch._dynamo.config.patch(UNLIMITED):
            # Strict: only then do nodes carry the marks by which every torchao finds layers.
            exported = torch.export.export(
                model, (blank,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=True
            )
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{type(model).__name__} cannot be exported for batches of any size, which static "
            f"int8 starts from: {first_line(error)}"
        ) from error
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = pt2e.prepare_pt2e(exported.module(), quantizer)
    with torch.no_grad():
        for part in images.split(BATCH):
            prepared(part)
    rounded = pt2e.convert_pt2e(prepared)
    rounding = torch.ops.quantized_decomposed.dequantize_per_tensor.default
    if not any(node.target is rounding for node in rounded.graph.nodes):
        raise UsageError(
            f"{type(model).__name__} has no convolution or linear layer that static int8 "
            "quantizes: it would change nothing"
        )
    return rounded


def lowered(rounded: fx.GraphModule, input_shape: tuple[int, ...]) -> fx.GraphModule:
    """The graph on oneDNN's int8 kernels, for batches of any size.

    Raises:
        UsageError: if this machine has no such kernels.
    """
    lowering = optional("torchao.quantization.pt2e.lowering", quiet=NOISY)
    blank = torch.zeros(2, *input_shape)
    torch._dynamo.mark_dynamic(blank, 0)
    try:
        with torch.no_grad():
            graph = lowering.lower_pt2e_quantized_to_x86(rounded, (blank,))
            # A bare graph module: the exported one insists on the size of its example batch.
            graph = channels_last(fx.GraphModule(graph, graph.graph), blank.dim() == 4)
            graph(blank[:1])
    except (AssertionError, AttributeError, RuntimeError) as error:
        raise UsageError(f"{LACKING} ({first_line(error)})") from error
    return graph


def channels_last(graph: fx.GraphModule, images: bool) -> fx.GraphModule:
    """The graph for the layout of int8 convolutions: that of floats is none of theirs.

    Images, or feature maps, enter in it; and a view of what comes out of them may copy.
    """
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
        elif node.op == "placeholder" and images:
            with graph.graph.inserting_after(node):
                laid = graph.graph.call_function(
                    torch.ops.aten.contiguous.default,
                    (node,),
                    {"memory_format": torch.channels_last},
                )
            node.replace_all_uses_with(
                laid, delete_user_cb=lambda user, laid=laid: user is not laid
            )
    graph.recompile()
    return graph


def straight_through(rounded: fx.GraphModule) -> fx.GraphModule:
    """The graph with torch's fake quantization, which has a gradient, in place of every rounding.

    Its int8 weights become parameters, so that they are counted as such.
    """
    twin = fx.GraphModule(rounded, copy.deepcopy(rounded.graph))
    quantized = torch.ops.quantized_decomposed
    for node in twin.graph.nodes:
        if node.target is quantized.dequantize_per_tensor.default:
            source, scale, zero, least, most, _ = node.args[0].args
            node.target = torch.fake_quantize_per_tensor_affine
            node.args, node.kwargs = (source, scale, zero, least, most), {}
        elif node.op == "call_module":  # guards on the batch size
            twin.graph.erase_node(node)
    twin.graph.eliminate_dead_code()
    twin.recompile()
    for name, buffer in list(twin.named_buffers()):
        if buffer.dtype is torch.int8:
            delattr(twin, name)
            twin.register_parameter(name, nn.Parameter(buffer, requires_grad=False))
    return twin


def _convolution(x: Tensor, *rest: Any, out: Tensor, **_: Any) -> int:
    """onednn.qconv_pointwise(x, scale, zero, weight, ...): every output pixel meets all weights."""
    return out.numel() // out.shape[1] * rest[2].numel()


def _linear(x: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    return x.numel() * out.shape[-1]


KERNELS = {
    "onednn.qconv_pointwise": _convolution,
    "onednn.qconv2d_pointwise": _convolution,
    "onednn.qlinear_pointwise": _linear,
}
"""oneDNN's int8 operators: name -> MACs."""

for _name, _formula in KERNELS.items():
    register(_name, _formula)
for _name in ("quantize_per_tensor", "dequantize_per_tensor", "dequantize_per_channel"):
    register(f"quantized_decomposed.{_name}", None)
