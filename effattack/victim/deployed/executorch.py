"""ExecuTorch programs (``.pte``): MACs of the instructions that the runtime's own trace shows."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from executorch.devtools import Inspector
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.extension.pybindings.portable_lib import _load_for_executorch
from torch import Tensor

from effattack.counting.macs import MacsCounter
from effattack.errors import UsageError


class Program:
    """A program for one input: itself ``run`` of a ``Deployed``, and :meth:`work` its ``work``.

    Raises:
        UsageError: where it calls a delegate such as XNNPACK, whose trace shows no shapes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plan = deserialize_pte_binary(path.read_bytes()).program.execution_plan[0]
        if delegates := ", ".join(sorted({each.id for each in self._plan.delegates})):
            raise UsageError(
                f"{path} calls {delegates}, whose trace shows no shapes: lower the model without a "
                "partitioner, or give Deployed a work= of your own"
            )

    def __reduce__(self) -> Any:
        return Program, (self.path,)

    @cached_property
    def _served(self) -> Any:
        return _load_for_executorch(str(self.path))

    def __call__(self, batch: Tensor) -> Tensor:
        return torch.cat([self._served.forward([each])[0].clone() for each in batch.split(1)])

    def work(self, batch: Tensor) -> Tensor:
        """(B,) float64: MACs of each input."""
        return torch.tensor([*map(self._macs, batch.split(1))], dtype=torch.float64)

    def _macs(self, single: Tensor) -> int:
        module = _load_for_executorch(str(self.path), enable_etdump=True)
        module.forward([single])
        with TemporaryDirectory() as folder:
            module.write_etdump_result_to_file(f"{folder}/trace")
            blocks = Inspector(etdump_path=f"{folder}/trace").event_blocks
        ran = [event for block in blocks for event in block.events]
        return sum(self._cost(e._instruction_id) for e in ran if e.name == "OPERATOR_CALL")

    def _cost(self, instruction: int) -> int:
        """What the counter sees of one instruction on tensors without numbers."""
        call = self._plan.chains[0].instructions[instruction].instr_args
        operator = self._plan.operators[call.op_index]
        library, name = operator.name.split("::")
        if library == "dim_order_ops" or name.endswith("_copy"):  # moves data
            return 0
        run = getattr(getattr(getattr(torch.ops, library), name), operator.overload or "default")
        given = zip(run._schema.arguments, map(self._value, call.args), strict=False)
        with MacsCounter() as counter:
            run(**{argument.name: value for argument, value in given})
        return counter.total

    def _value(self, index: int) -> Any:
        value = self._plan.values[index].val
        if hasattr(value, "sizes"):
            return torch.empty(value.sizes, device="meta")
        if hasattr(value, "items"):
            return [self._value(item) for item in value.items]
        return next(iter(vars(value).values()), None)
