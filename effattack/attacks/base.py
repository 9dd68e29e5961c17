"""What every attack shares: the call, its checks, and leaving no trace on the victim.

An attack is a composition: a threat (where to look), an objective (what to want), a search (how to
look). A published attack is a short class that names the three and its paper's hyper-parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from effattack.attacks.foreign.libraries import telling
from effattack.attacks.naming import options_given, options_of, written
from effattack.attacks.objectives import BatchGoal, Callback, Objective, unwatched
from effattack.attacks.searches.by_kind import climbing
from effattack.attacks.searches.climbing import Climb
from effattack.attacks.searches.projected import ProjectedGradient
from effattack.budgets import size_text
from effattack.domains import Arrays
from effattack.errors import NotApplicable, UsageError
from effattack.tasks import Classes
from effattack.threats import Linf, Threat, parse_threat, usual_threat
from effattack.threats.arrays import on_arrays
from effattack.threats.base import moves_in
from effattack.victim import Victim
from effattack.victim.twins import quantized
from effattack.victim.undisturbed import glance, seed_global_state, undisturbed

Kind = Literal["compute", "accuracy", "control"]
Knowledge = Literal["white box", "transfer", "queries", "nothing"]


class Attack(ABC):
    """Made for one victim, called like a function: ``adversarial = attack(images, labels)``.

    The annotated attributes of a subclass that have a value are its options, keywords of the
    constructor as in a dataclass: ``settings`` holds all of them, and those that differ from their
    default stand in ``name``. Victim, seed and budget have columns of their own.

    Args:
        victim: the victim under attack.
        eps: l-inf budget, in the unit of the victim's inputs: of images in [0, 1] pixels.
        threat: another budget in place of ``eps``, or its text: ``L2(1.0)``, ``"patch:16"``. By
            default what is :meth:`usual`.
        seed: of the attack's own random numbers; the global state is as before afterwards.
        options: of the attack.

    Raises:
        NotApplicable: if the attack cannot apply to the victim.
        UsageError: for an option that it does not have, or a budget that is none.
    """

    kind: ClassVar[Kind] = "compute"
    knowledge: ClassVar[Knowledge] = "white box"
    """What it sees of the victim: all, another model in its place, its answers alone, nothing."""
    budgeted: ClassVar[bool] = True
    """Whether a budget that is given for all attacks is meant for this one, too."""
    fixed: ClassVar[bool] = False
    """Whether its budget cannot be chosen at all."""
    takes: ClassVar[str] = "arrays"
    """What it changes: ``"any"`` inputs, ``"arrays"``, those of one kind of domain, or of several:
    ``"arrays or tokens"``."""
    edition: ClassVar[int] = 1
    """Counts up when what it finds moves under the same options: baselines and cells tell by it."""
    settings: Mapping[str, Any]
    """Every option that the attack was made with, defaults included."""
    threat: Threat
    """What it may change, bound to the domain of the victim."""

    def __init__(
        self,
        victim: Victim,
        eps: float | None = None,
        *,
        threat: Threat | str | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.victim, self.seed = victim, seed
        self.settings = options_given(type(self), options)
        vars(self).update(self.settings)
        if not moves_in(self.takes, victim.domain):
            raise NotApplicable(
                f"{self.label} changes {self.takes}, {victim.name} takes {victim.domain.nouns}; "
                f"{instead(victim, self.kind)}"
            )
        self.threat = self.budget(eps, threat).on(victim.domain)
        if self.takes != "any" and isinstance(victim.domain, Arrays):
            on_arrays(self.threat)
        if reason := self.why_not(victim):
            raise NotApplicable(f"{reason}; {instead(victim, self.kind)}")
        self.prepare()

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        """The budget of an attack that is given none: of images 8/255 in l-inf."""
        return usual_threat(victim.domain)

    def budget(self, eps: float | None, threat: Threat | str | None) -> Threat:
        """The threat that the arguments of the constructor mean.

        Raises:
            UsageError: for a threat that is none.
        """
        if self.fixed and (eps is not None or threat is not None):
            raise UsageError(f"{self.label} keeps to no budget: leave eps and threat out")
        if threat is not None:
            return as_threat(threat)
        return self.usual(self.victim) if eps is None else Linf(eps)

    def prepare(self) -> None:
        """Make what the options stand for, and refuse those that are none; by default nothing."""
        return

    @property
    def eps(self) -> float:
        """Size of the budget, in the unit of the threat."""
        return self.threat.eps

    @property
    def gradients(self) -> int:
        """Most gradients of one image: backward passes, as far as the options tell."""
        return self.settings.get("steps", 0)

    @property
    def label(self) -> str:
        """What the attack is called, whatever its options."""
        return type(self).__name__

    @property
    def name(self) -> str:
        """How tables and the command line call this attack: ``Slowdown(keep_prediction=True)``."""
        return f"{self.label}({written(self.told)})" if self.told else self.label

    @property
    def told(self) -> dict[str, Any]:
        """The options that differ from their default."""
        usual = options_of(type(self))
        return {k: v for k, v in self.settings.items() if k not in usual or v != usual[k]}

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        """The reason why this attack cannot apply to the victim; None if it can."""
        return None

    def __call__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        callback: Callback = unwatched,
    ) -> Tensor:
        """Adversarial inputs: inside the budget, such as a deployed model can be fed, detached.

        Args:
            images: a batch of the victim's domain; moved to its device and rounded to what a
                deployed model can be fed first: images to float32 on the 8-bit grid.
            labels: of the victim's task, (B,) class indices; where missing, the clean answers
                stand in.
            callback: called once per step of a search of ours (those of other libraries are
                silent); what it raises ends the attack.

        Raises:
            UsageError: for inputs or labels that cannot be used.
            GradientError: if no gradient reaches the inputs.
            LibraryError: if another library fails on these inputs.
        """
        with undisturbed(self.victim):
            seed_global_state(self.seed)
            clean, goal = self._goal(images, labels, callback)
            with telling(self.name, self.victim.name, tuple(getattr(clean, "shape", ()))):
                given = clean.clone()  # an attack may write into what it is given
                found = self.run(given, goal, Generator().manual_seed(self.seed)).detach()
            self.threat.check(found, clean)
            return found

    def _goal(
        self, images: Tensor, labels: Tensor | None, callback: Callback
    ) -> tuple[Tensor, BatchGoal]:
        """Checked inputs that a deployed model can be fed, and what an attack on them refers to."""
        domain = self.victim.domain
        domain.check(images)
        clean = domain.snap(domain.place(images, self.victim.device))
        if labels is not None:
            self.victim.task.check(labels, len(clean))
            labels = labels.to(clean.device, copy=True)
            labels = labels if labels.is_floating_point() else labels.long()
        largest = self.threat.largest(clean)
        victim = self.victim.queried if self.knowledge == "queries" else self.victim
        victim = victim.searched(self.seed)
        return clean, BatchGoal.of(victim, clean, labels, callback, largest=largest)

    @abstractmethod
    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        """The attack itself, on checked inputs; the victim is in eval mode.

        Returns inputs that end in ``self.threat.on_grid(inputs, clean)``: they are checked.
        """

    def __repr__(self) -> str:
        size = f"threat={str(self.threat)!r}"
        if isinstance(self.threat, Linf) and not self.threat.unit:
            size = f"eps={size_text(self.threat.name, self.eps)}"
        edition = f"edition={self.edition}" if self.edition > 1 else ""
        told = filter(None, [size, written(self.settings), edition, f"seed={self.seed}"])
        return f"{self.label}({', '.join(told)})"


class GradientAttack(Attack):
    """An attack on the compute by gradients: threat x objective x search.

    The search is written for arrays. Where inputs are prompts, it is the coordinate gradient of
    equal effort (:mod:`effattack.attacks.searches.words`).
    """

    search: Climb

    @abstractmethod
    def composed(self) -> tuple[Objective, ProjectedGradient]:
        """What to want and how to look, by the options."""

    def prepare(self) -> None:
        self.objective, search = self.composed()
        self.search = climbing(search, self.threat, self.seed)
        check_objective(self.objective, self.victim, self.threat)

    @property
    def gradients(self) -> int:
        return self.search.steps * self.search.restarts

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        return self.search(clean, self.threat, self.objective, goal, generator)


class Composed(GradientAttack):
    """Any objective under any search, without a class of its own.

    Args:
        victim, threat, seed: see :class:`Attack`.
        objective: what to want.
        search: how to look.
    """

    def __init__(
        self,
        victim: Victim,
        threat: Threat,
        objective: Objective,
        search: ProjectedGradient,
        *,
        seed: int = 0,
    ) -> None:
        self._parts = objective, search
        super().__init__(victim, threat=threat, seed=seed)

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        return self._parts


def as_threat(threat: Threat | str) -> Threat:
    """A threat as it is, or of its text.

    Raises:
        UsageError: for a threat that is none.
    """
    if isinstance(threat, str):
        return parse_threat(threat)
    if not isinstance(threat, Threat):
        raise UsageError(f"threat = {threat!r}: give a threat, or its text, such as 'l2:1.0'")
    return threat


def check_objective(objective: Objective, victim: Victim, threat: Threat | None = None) -> None:
    """Refuse, before any image is attacked, a victim that lacks what an objective needs.

    ``threat`` is what may change, where that is not everything.

    Raises:
        NotApplicable: with the reason, and what does apply.
    """
    trace = glance(victim)
    if reason := without_gradient(victim, threat):
        raise NotApplicable(f"{reason}; {queries(victim)} applies")
    try:
        objective.check(trace, victim)
    except NotApplicable as error:
        plain = not trace.gates and victim.sees == "gates"
        rest = instead(victim, "accuracy" if plain else "compute")
        raise NotApplicable(f"{error}; {rest}") from error


def without_gradient(victim: Victim, threat: Threat | None = None) -> str | None:
    """Why no gradient attack can apply: kernels that have none, words not lifted; else None.

    Only quantized weights and models that cannot be opened are excused: any other victim owes one.
    """
    if not (victim.domain.smooth if threat is None else threat.smooth):
        return None if victim.lifts else f"{victim.name} lifts no words (Victim.lift)"
    if victim.sees == "gates" and not quantized(victim):
        return None
    grey = victim.example(1).requires_grad_()
    with undisturbed(victim):
        logits = victim.trace(grey).logits
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad(logits.sum(), grey, allow_unused=True)
            if gradient is not None:
                return None
    return f"{victim.name} has no gradient (its kernels have none, or its graph was frozen)"


def instead(victim: Victim, kind: Kind) -> str:
    """Attacks of a kind that apply to every such victim."""
    if victim.domain.kind in ("tokens", "graph") and victim.counted and not victim.constant:
        return "Slowdown, AutoSlow and QueryAttack apply" if victim.lifts else "QueryAttack applies"
    if victim.domain.kind == "parts" and victim.counted and not victim.constant:
        return "Slowdown, AutoSlow and QueryAttack apply"
    accuracy = kind == "accuracy" or victim.constant
    if not isinstance(victim.domain, Arrays) or (accuracy and not isinstance(victim.task, Classes)):
        return "noise applies"
    if accuracy:
        return "torchattacks.PGD and foolbox.LinfPGD apply"
    if victim.sees == "answers":
        return "QueryAttack and LatencyQuery apply" if victim.counted else "LatencyQuery applies"
    return f"Slowdown, AutoSlow and {queries(victim)} apply"


def queries(victim: Victim) -> str:
    """The query attack that applies: by work where it is known, else by time."""
    return "QueryAttack" if victim.counted else "LatencyQuery"
