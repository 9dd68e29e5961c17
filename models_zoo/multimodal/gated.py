"""Modalities that are paid for one after the other: a gate on a modality.

The cheapest is always read. Where its answer is sure, it stands; else the next is paid for, as a
gate at the level of modalities has it (DynMM: Xue and Marculescu 2022, arXiv 2204.00102; there, a
network of its own is the gate). Each modality has early exits of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from effattack.domains import Domain, Parts, PartsBatch
from effattack.errors import UsageError, unknown_name
from effattack.models_zoo.criteria import Criterion, as_criterion
from effattack.models_zoo.early_exit.early_exit import measure_stages
from effattack.models_zoo.exits import criterion_trace
from effattack.tasks import Classes
from effattack.victim import Trace, Victim


class Modality(nn.Module):
    """What reads one part of the inputs: stages in a row, a classifier behind each.

    Args:
        domain: of the part, of one size.
        stages: stage k maps the features of stage k - 1, stage 0 the normalised part.
        heads: one per stage: features -> logits (B, classes).
        mean, std: normalisation of the part.

    Raises:
        UsageError: if stages and heads do not pair up or disagree on the classes, or a size is
            free.
    """

    def __init__(
        self,
        domain: Domain,
        stages: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        if len(stages) != len(heads) or not stages:
            raise UsageError(
                f"{len(stages)} stages and {len(heads)} heads: give at least one stage, and one "
                "head for each"
            )
        stage_macs, head_macs, widths = measure_stages(stages, heads, domain)
        if len(set(widths)) != 1:
            raise UsageError(f"the heads have {widths} classes: they must agree")
        self.domain, self.mean, self.std, self.classes = domain, mean, std, widths[0]
        self.stages, self.heads = nn.ModuleList(stages), nn.ModuleList(heads)
        self.step_macs = [a + b for a, b in zip(stage_macs, head_macs, strict=True)]
        self.dense_macs = sum(stage_macs) + head_macs[-1]

    def normalised(self, inputs: Tensor) -> Tensor:
        """A part as stage 0 takes it."""
        return (inputs - self.mean) / self.std

    def said(self, inputs: Tensor) -> Tensor:
        """What every classifier says of a part, (B, stages, classes)."""
        features, found = self.normalised(inputs), []
        for stage, head in zip(self.stages, self.heads, strict=True):
            features = stage(features)
            found.append(head(features))
        return torch.stack(found, 1)


class Step(NamedTuple):
    """One stage of one modality, as the deployed path runs it."""

    modality: Modality
    part: str
    first: int
    """Of all stages, the number of this modality's first."""
    stage: nn.Module
    head: nn.Module


class ModalityCascade(Victim):
    """Modalities in the order in which they are paid for, cheapest first.

    A classifier's logits are added to the last ones of the modality before. Where the parts are
    independent given the class and all classes are as frequent, log-probabilities add up so (the
    product rule of Kittler et al., "On Combining Classifiers", IEEE TPAMI 20(3), 1998): modalities
    may be trained apart, and each answers alone where the others are missing (:meth:`without`).

    Gates are those of a chain: ``PART.exits.k`` behind the classifiers of a modality but the last,
    and ``pay.PART``, active where that modality is paid for. ``Trace.stages`` tells the MACs of
    each modality.

    Args:
        modalities: name of a part -> what reads it.
        criterion: when to answer; a number is a confidence threshold.
        names: of the classes, as reports call them.
        settings: ``name``, ``data``.

    Raises:
        UsageError: without modalities, if they disagree on the classes or have one classifier in
            all, or the criterion does not fit them.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        criterion: float | Sequence[float] | Criterion,
        *,
        names: Sequence[str] = (),
        name: str = "ModalityCascade",
        **settings: Any,
    ) -> None:
        if not modalities:
            raise UsageError(f"{name} has no modalities: give one, by the name of its part")
        classes = {part: modality.classes for part, modality in modalities.items()}
        if len(set(classes.values())) != 1:
            raise UsageError(f"modalities of {classes} classes: give some that agree")
        super().__init__(
            name=name,
            family="cascade",
            domain=Parts(**{part: modality.domain for part, modality in modalities.items()}),
            task=Classes(next(iter(classes.values())), names),
            **settings,
        )
        self.modalities = nn.ModuleDict(modalities)
        self.leaving_macs = list(accumulate(macs for m in self._each() for macs in m.step_macs))
        if len(self.leaving_macs) == 1:
            raise UsageError(
                f"{name} has one classifier in all and decides nothing: give it another stage, or "
                "score it as any classifier (effattack.Opaque)"
            )
        self.criterion = as_criterion(criterion, len(self.leaving_macs) - 1)
        self.max_macs = self.leaving_macs[-1]
        self.dense_macs = float(sum(modality.dense_macs for modality in self._each()))
        self.eval()

    def __call__(self, batch: PartsBatch) -> Tensor:
        """As of every victim.

        Raises:
            UsageError: where a modality is missing, naming it and who answers without.
        """
        self._expect_all(batch)
        return super().__call__(batch)

    def forward(self, batch: PartsBatch) -> Tensor:
        here = torch.arange(len(batch), device=batch.device)
        answers = torch.empty(len(batch), self.num_classes, dtype=self.dtype, device=batch.device)
        said = answers.new_empty(len(batch), 0, self.num_classes)
        for k, step in enumerate(self._steps()):
            if k == step.first:
                features = step.modality.normalised(batch[step.part][here])
            features = step.stage(features)
            logits = step.head(features)
            if step.first:
                logits = logits + said[:, step.first - 1]
            said = torch.cat([said, logits[:, None]], 1)
            if said.shape[1] == len(self.leaving_macs):
                break
            onward = self.criterion.go_on(said)
            answers = answers.index_copy(0, here[~onward], logits[~onward])
            if not onward.any():
                return answers
            here, said, features = here[onward], said[onward], features[onward]
        return answers.index_copy(0, here, said[:, -1])

    def trace(self, batch: PartsBatch) -> Trace:
        self._expect_all(batch)
        trace = criterion_trace(
            self.criterion, self.said(batch), self._gate_names(), self.leaving_macs
        )
        ends = [0.0, *(self.leaving_macs[end - 1] for _, end in self._spans().values())]
        paid = [trace.macs.clamp(first, last) - first for first, last in pairwise(ends)]
        return trace._replace(stages=dict(zip(self.modalities, paid, strict=True)))

    def said(self, batch: PartsBatch) -> Tensor:
        """Logits behind every stage of all modalities, (B, stages, classes)."""
        found: list[Tensor] = []
        for part, modality in self.modalities.items():
            own = modality.said(batch[part])
            found.append(own + found[-1][:, -1:] if found else own)
        return torch.cat(found, 1)

    def without(self, part: str, **settings: Any) -> ModalityCascade:
        """What answers requests that lack a part, by the others and the same criterion.

        Args:
            part: that is missing.
            settings: ``name`` and ``data``; the name tells what is missing, unless you give one.

        Raises:
            UsageError: for an unknown part, if what is left decides nothing, or for a criterion
                with a threshold per decision: what is left has fewer.
        """
        if part not in self.modalities:
            raise unknown_name("modality", part, self.modalities)
        others = {name: m for name, m in self.modalities.items() if name != part}
        if not others:
            raise UsageError(f"{self.name} has no modality but {part}: a request must bring it")
        if isinstance(getattr(self.criterion, "thresholds", None), tuple):
            raise UsageError(
                f"{self.name} has a threshold for each decision, and without {part} there are "
                f"fewer: give ModalityCascade the others ({', '.join(others)}) and a criterion"
            )
        task: Any = self.task
        named = {"name": f"{self.name}_without_{part}", "names": task.names, **settings}
        return ModalityCascade(others, self.criterion, **named)

    def _expect_all(self, batch: PartsBatch) -> None:
        given = getattr(batch, "parts", self.modalities)
        for part in self.modalities:
            if part not in given:
                raise UsageError(
                    f"{self.name} got no {part}, and guesses none: give each input one, or ask "
                    f"victim.without({part!r}), which answers by the others"
                )

    def _each(self) -> Iterator[Any]:
        yield from self.modalities.values()

    def _spans(self) -> dict[str, tuple[int, int]]:
        """Part -> the numbers of its stages among all, from the first up to before the last."""
        ends = list(accumulate((len(m.stages) for m in self._each()), initial=0))
        return dict(zip(self.modalities, pairwise(ends), strict=True))

    def _steps(self) -> Iterator[Step]:
        for part, modality in self.modalities.items():
            first, _ = self._spans()[part]
            for stage, head in zip(modality.stages, modality.heads, strict=True):
                yield Step(modality, part, first, stage, head)

    def _gate_names(self) -> list[str]:
        names = []
        for part, (first, end) in self._spans().items():
            names += [f"pay.{part}"] if first else []
            names += [f"{part}.exits.{k}" for k in range(end - first - 1)]
        return names
