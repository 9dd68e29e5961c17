"""Early classification of time series: reading stops as soon as the classifier is sure.

Every few steps a classifier looks at what has been read so far; once its confidence reaches the
threshold, the rest of the series is never read. See Mori et al., "Early Classification of Time
Series", 2017, for such triggers; any :class:`~effattack.models_zoo.criteria.Criterion` is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from effattack.counting.tallies import Count, tally
from effattack.domains import Series
from effattack.errors import UsageError
from effattack.models_zoo.criteria import Criterion
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.series.readers import Reader
from effattack.victim import Gate, Trace
from effattack.victim.structure import Exits


class EarlyReading(EarlyExit):
    """A reader and a classifier that is asked after every piece of the series.

    ``forward`` never touches what comes after the piece at which a series was sure. One gate,
    ``steps``: a unit per look but the last, active where reading goes on. How many samples were
    read stands beside the MACs, as the count ``samples``.

    Args:
        reader: reads the pieces; see :mod:`effattack.models_zoo.series.readers`.
        domain: of the series, all of one length.
        every: steps of a piece; the last one may be shorter.
        classes: of the linear classifier on the reader's summary.
        criterion: when to stop; a number is a confidence threshold.
        settings: ``mean`` and ``std`` per channel, ``name``, ``data``.

    Raises:
        UsageError: if there is no look before the end, or domain or criterion do not fit.
    """

    def __init__(
        self,
        reader: Reader,
        domain: Series,
        *,
        every: int,
        classes: int,
        criterion: float | Sequence[float] | Criterion,
        name: str = "EarlyReading",
        **settings: Any,
    ) -> None:
        channels, length = domain.shape
        if channels != reader.channels or length is None:
            raise UsageError(
                f"{name}: a reader of {reader.channels} channels in Series{domain.shape}: give "
                "both the same channels, and the series a length"
            )
        if length % reader.frame or every % reader.frame:
            raise UsageError(
                f"every = {every} of {length} steps: the reader takes {reader.frame} at a time, "
                "give multiples of it"
            )
        if not 0 < every < length:
            raise UsageError(
                f"every = {every} of {length} steps: the classifier must look at least once before "
                "the end"
            )
        ends = [*range(every, length, every), length]
        classifier = nn.Linear(reader.width, classes)
        super().__init__(
            [_Piece(reader, first, end) for first, end in pairwise([0, *ends])],
            [_Look(classifier) for _ in ends],
            criterion,
            domain=domain,
            counts={"samples": Count("sample", partial(_all, length))},
            name=name,
            **settings,
        )
        self.reader, self.classifier = reader, classifier
        self.eval()
        self.ends = tuple(ends)

    def trace(self, series: Tensor) -> Trace:
        """As of early exits, its gates in one."""
        trace = super().trace(series)
        gates = trace.gates
        costs = [torch.as_tensor(gate.cost, dtype=torch.float64).flatten() for gate in gates]
        steps = Gate(
            name="steps",
            margin=torch.cat([gate.margin for gate in gates], 1),
            active=torch.cat([gate.active for gate in gates], 1),
            reached=torch.cat([gate.reached for gate in gates], 1),
            cost=torch.cat(costs).to(series.device),
            proxy=gates[0].proxy,
            pushed=True,
        )
        looks = steps.active.sum(1) + self.criterion.earliest
        read = torch.tensor(self.ends, dtype=torch.float64, device=series.device)[looks]
        return trace._replace(gates=(steps,), also={"samples": read})

    def structure(self) -> Exits:
        structure = super().structure()
        return structure._replace(gates=("steps",) * len(structure.gates))


def _all(length: int, series: Tensor) -> Tensor:
    return torch.full((len(series),), float(length), dtype=torch.float64, device=series.device)


class _Piece(nn.Module):
    """Steps ``first`` up to ``end``; borrows the reader, which only the victim registers."""

    def __init__(self, reader: Reader, first: int, end: int) -> None:
        super().__init__()
        self._borrowed = (reader,)
        self.first, self.end = first, end

    def forward(self, seen: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The whole series, with the memory after the pieces before -> the same after this one."""
        (reader,) = self._borrowed
        if isinstance(seen, Tensor):
            seen = (seen, *reader.start(len(seen), seen))
        series, *memory = seen
        tally("samples", len(series) * (self.end - self.first))
        return series, *reader.read(series[:, :, self.first : self.end], tuple(memory))


class _Look(nn.Module):
    """The one classifier, on the summary."""

    def __init__(self, classifier: nn.Linear) -> None:
        super().__init__()
        self._borrowed = (classifier,)

    def forward(self, seen: tuple[Tensor, ...]) -> Tensor:
        return self._borrowed[0](seen[1])
