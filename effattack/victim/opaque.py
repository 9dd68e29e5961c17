"""Models that cannot be opened: counted as they run, without gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from effattack.counting.macs import MacsCounter
from effattack.domains import Batch, Domain, Pixels
from effattack.domains.base import tensors
from effattack.errors import EffattackError, UsageError, first_line
from effattack.tasks import Classes, Task
from effattack.victim.contract import Victim, either, set_mode
from effattack.victim.door import blank, example_of, without_numbers
from effattack.victim.trace import Trace

ONE_LOGIT = (
    "one logit z per image stands for two classes: return torch.cat([torch.zeros_like(z), z], 1), "
    "whose softmax is sigmoid(z), with z of shape (B, 1)"
)


class Opaque(Victim):
    """A model that cannot be opened: no gates, executed MACs counted by dispatch.

    Its ``trace`` runs the model input by input under the counter, an exception to the closed form.
    Gradient compute attacks need gates and do not apply; query attacks do.

    Args:
        model: any module (B, *input_shape) -> (B, classes): compiled, exported and scripted ones,
            too; or a function. One that takes a single input at a time runs through a batch in a
            loop.
        input_shape: (C, H, W) of one image.
        name: how tables and files call it.
        max_macs: worst case if known; attack success is NaN without it, and the MACs ratio judges.
        dense_macs: MACs without the mechanism, if known.
        batch_coupled: as a model is whose int8 scales are taken over the batch; scored at batch 1.
        data, domain: see :class:`Victim`.
        task: what the outputs say, where they are no logits.

    Raises:
        UsageError: if the model does not run on one input, or does not return plain logits.
    """

    sees = "answers"

    def __init__(
        self,
        model: nn.Module | Callable[[Any], Tensor],
        input_shape: tuple[int | None, ...] | None = None,
        *,
        name: str | None = None,
        max_macs: float = float("nan"),
        dense_macs: float = float("nan"),
        batch_coupled: bool = False,
        data: str | None = None,
        domain: Domain | None = None,
        task: Task | None = None,
    ) -> None:
        called = model if isinstance(model, nn.Module) else Function(model)
        name = name or str(getattr(model, "__name__", type(model).__name__))
        _expect_seen(called, name)
        set_mode(called, False)
        known: Domain = either(name, "input_shape", input_shape, "domain", domain, Pixels)
        super().__init__(
            name=name,
            family="opaque",
            max_macs=max_macs,
            dense_macs=dense_macs,
            batch_coupled=batch_coupled,
            data=data,
            domain=known,
            task=Classes(_classes(called, known, name)) if task is None else task,
        )
        self.model = called
        self.one_by_one = not _takes_two(called, known)

    def in_float64(self) -> None:
        """There is none: what cannot be opened is judged as it is."""

    def forward(self, batch: Batch) -> Tensor:
        if self.one_by_one:
            return self.task.join([self.model(each.clone()) for each in batch.split(1)])
        return self.model(batch)

    def trace(self, batch: Batch) -> Trace:
        outputs, macs = [], []
        for each in batch.split(1):
            with MacsCounter() as counter:
                outputs.append(self.model(each.clone()))
            macs.append(counter.total)
        return Trace(
            logits=self.task.join(outputs),
            gates=(),
            macs=torch.tensor(macs, dtype=torch.float64, device=batch.device),
        )


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def _expect_seen(model: nn.Module, name: str) -> None:
    """Refuse TorchScript whose convolutions pass torch's dispatcher, and so the counter, by.

    Raises:
        UsageError: with the remedy.
    """
    graphs = [part.graph for part in model.modules() if isinstance(part, torch.jit.ScriptModule)]
    if any(graph.findAllNodes("prim::mkldnn_convolution", True) for graph in graphs[:1]):
        raise UsageError(
            f"{name} was made by torch.jit.optimize_for_inference, whose convolutions no counter "
            "sees: score what torch.jit.script or torch.jit.freeze gave, which multiplies as much"
        )


def _classes(model: nn.Module, domain: Domain, name: str) -> int:
    """How many classes the logits of a model tell, by one input that means nothing.

    Raises:
        UsageError: where it gives no plain logits, with the remedy.
    """
    if example_of(model).is_meta:
        raise UsageError(without_numbers(name))
    example = blank(model, domain, 1)
    try:
        with torch.no_grad():
            logits = model(example)
    except EffattackError:
        raise
    except Exception as error:  # whatever a user's model raises
        form = " and ".join(f"{tuple(part.shape)} in {part.dtype}" for part in tensors(example))
        said = "input_shape" if domain.kind == "pixels" else "the domain"
        raise UsageError(
            f"{name} does not run on one {domain.noun}, {form} "
            f"({first_line(error)}): correct {said}; a model that was exported or compiled "
            "for batches of another size needs a dynamic batch dimension"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        hint = f" ({ONE_LOGIT})" if found == (1,) else ""
        raise UsageError(
            f"Opaque needs a model that returns plain logits (B, classes), not {found}: wrap "
            f"it in a module whose forward returns the logits only{hint}"
        )
    if logits.shape[1] == 1:
        raise UsageError(f"{name} has one class: {ONE_LOGIT}")
    return logits.shape[1]


def _takes_two(model: nn.Module, domain: Domain) -> bool:
    """Whether a model takes more than one input at once: exported ones may be fixed to one."""
    try:
        with torch.no_grad():
            return len(model(blank(model, domain, 2))) == 2
    except Exception:  # whatever a user's model raises
        return False
