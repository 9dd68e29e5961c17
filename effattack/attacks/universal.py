"""Universal attacks: one perturbation for all images, or one per class, learnt beforehand."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Self

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack, check_objective
from effattack.attacks.objectives import Callback, Goal, Objective, Step, unwatched
from effattack.attacks.searches.projected import input_gradient
from effattack.attacks.searches.training import Training
from effattack.errors import NotApplicable, UsageError
from effattack.tasks import Classes
from effattack.threats import ArrayThreat
from effattack.victim.undisturbed import seed_global_state, undisturbed


class UniversalAttack(Attack):
    """An attack that learns on some images and is then called on others.

    ``fit`` learns one perturbation, or one per class, that raises the objective on all images
    given: iterates are looked at on the 8-bit grid, as they will be deployed. The state with most
    executed MACs, at the start or after any epoch, is kept, for each class its own. Then
    ``attack(images, labels)`` applies it; per class, the label chooses.

    Args:
        victim: the victim under attack.
        threat: what one perturbation may change.
        objective: what to want.
        training: epochs, batch and step rule.
        seed: of the start, the order of the images and the places of a patch.
        per_class: one perturbation per class.

    Raises:
        NotApplicable: if the victim lacks what the objective needs, or one class per input.
    """

    threat: ArrayThreat
    per_class = False
    perturbation: Tensor | None
    """(1 or classes, *shape of an input), for patches (..., size, size); None before ``fit``."""
    to_fit: tuple[Tensor, Tensor] | None
    """Images and labels that an evaluation will fit it on."""
    fitted_on: frozenset[str]
    """Fingerprints of the inputs it was fitted on: it must not be scored on these."""

    @abstractmethod
    def composed(self) -> tuple[Objective, Training]:
        """What to want and how to learn, by the options."""

    def prepare(self) -> None:
        if self.per_class and not isinstance(self.victim.task, Classes):
            raise NotApplicable(
                f"{self.victim.name} does not answer with one class per input, by which a "
                "perturbation would be chosen: leave per_class out"
            )
        self.perturbation, self.to_fit, self.fitted_on = None, None, frozenset()
        self.objective, self.training = self.composed()
        check_objective(self.objective, self.victim)

    def fit(
        self,
        data: Tensor | Iterable[tuple[Tensor, Tensor]],
        labels: Tensor | None = None,
        callback: Callback = unwatched,
    ) -> Self:
        """Learn the perturbation; returns the attack itself.

        Args:
            data: a batch of inputs, or a loader of (inputs, labels).
            labels: (B,) class indices; where missing, the clean predictions stand in.
            callback: called once per step, with the epoch as ``restart``.

        Raises:
            UsageError: for images or labels that cannot be used.
            GradientError: if no gradient reaches the inputs.
        """
        if not isinstance(data, Tensor):
            batches = list(data)
            data, labels = (torch.cat([batch[part] for batch in batches]) for part in (0, 1))
        with undisturbed(self.victim):
            seed_global_state(self.seed)
            clean, goal = self._in_batches(data, labels, callback)
            self.perturbation = self._learnt(clean, goal)
            self.fitted_on = frozenset(self.victim.domain.fingerprints(clean))
        return self

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        if self.perturbation is None:
            raise UsageError(
                f"{self.name} is universal and not fitted yet: call attack.fit(images, labels) "
                "first, with images that are not scored"
            )
        threat, which = self.threat.placed(clean, generator), self._which(goal)
        if bool(self.perturbation[which].isnan().any()):
            raise UsageError(
                f"{self.name} was fitted without images of some of these classes: fit it on all"
            )
        return threat.on_grid(threat.apply(self.perturbation[which], clean), clean)

    def first(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """What training starts from, for inputs of shape (K, ...): the threat's usual pattern."""
        return self.threat.pattern(shape, generator)

    def _which(self, goal: Goal) -> Tensor:
        """(B,) index of the perturbation of each image."""
        if self.per_class:
            return goal.labels
        return torch.zeros(len(goal.labels), dtype=torch.long, device=goal.labels.device)

    def _in_batches(
        self, images: Tensor, labels: Tensor | None, callback: Callback
    ) -> tuple[Tensor, Goal]:
        """All images and their goal; the victim sees one batch at a time."""
        self.victim.domain.check(images)
        if labels is not None:
            self.victim.task.check(labels, len(images))
        clean, logits, known = [], [], []
        for rows in torch.arange(len(images)).split(self.training.batch):
            some = None if labels is None else labels[rows]
            part, goal = self._goal(images[rows], some, callback)
            clean.append(part)
            logits.append(goal.logits)
            known.append(goal.labels)
        join = self.victim.task.join
        return torch.cat(clean), Goal(goal.victim, join(logits), join(known), callback)

    def _learnt(self, clean: Tensor, goal: Goal) -> Tensor:
        training, generator = self.training, Generator().manual_seed(self.seed)
        kinds = self.victim.num_classes if self.per_class else 1
        shape = (kinds, *clean.shape[1:])
        pattern = self.threat.limit(self.first(shape, generator).to(clean))
        best, most = pattern.clone(), self._work(pattern, clean, goal)
        best[most.isinf()] = torch.nan  # no image to learn from
        move, steps = training.rule.begin(self.threat), -(-len(clean) // training.batch)
        for epoch in range(training.epochs):
            order = torch.randperm(len(clean), generator=generator).to(clean.device)
            for step, rows in enumerate(order.split(training.batch)):
                some = goal.rows(rows)
                gradient, work, value = self._look(pattern, clean[rows], some, generator)
                progress = (epoch + step / steps) / training.epochs
                pattern = self.threat.limit(move(pattern, gradient, progress))
                goal.callback(Step(epoch, step, steps, work, value))
            found = self._work(pattern, clean, goal)
            better = (found >= most) & found.isfinite()
            best[better], most[better] = pattern[better], found[better]
        return best

    def _look(
        self, pattern: Tensor, clean: Tensor, goal: Goal, generator: Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of the objective in the perturbations; executed work and value, (B,) each.

        Clipping and rounding are passed straight through.
        """
        threat = self.threat.placed(clean, generator)
        pattern = pattern.clone().requires_grad_()
        applied = threat.apply(pattern[self._which(goal)], clean)
        images = threat.on_grid(applied.detach(), clean).requires_grad_()
        trace = goal.victim.trace(images)
        value = self.objective(trace, goal)
        slope = input_gradient(value, images, trace)
        (gradient,) = torch.autograd.grad(applied, pattern, slope)
        return gradient, self.victim.spent(trace), value.detach()

    def _work(self, pattern: Tensor, clean: Tensor, goal: Goal) -> Tensor:
        """(K,) executed work on the inputs of each perturbation; -inf where it has none."""
        generator, which = Generator().manual_seed(self.seed), self._which(goal).cpu()
        spent = []
        with torch.no_grad():
            for rows in torch.arange(len(clean), device=clean.device).split(self.training.batch):
                threat = self.threat.placed(clean[rows], generator)
                applied = threat.apply(pattern[which[rows.cpu()].to(clean.device)], clean[rows])
                trace = goal.victim.trace(threat.on_grid(applied, clean[rows]))
                spent.append(self.victim.spent(trace).cpu())
        total = torch.zeros(len(pattern), dtype=torch.float64)
        total = total.index_add(0, which, torch.cat(spent).double())
        return torch.where(torch.bincount(which, minlength=len(pattern)) > 0, total, -torch.inf)
