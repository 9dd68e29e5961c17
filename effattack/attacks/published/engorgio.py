"""Engorgio: words and text as distributions that are descended together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack
from effattack.attacks.objectives import BatchGoal
from effattack.attacks.searches.best import Best, ranked, unfinished
from effattack.attacks.searches.memory import Moments
from effattack.attacks.searches.words import GRADIENT, widen
from effattack.domains.tokens import padded
from effattack.errors import NotApplicable, UsageError
from effattack.tasks import Text
from effattack.threats.edits import Added
from effattack.victim import Victim
from effattack.victim.leaf import Leaf
from effattack.victim.writing import Writes

READ_OUTS = ("argmax", "sample")
SPREAD = 0.1
"""Standard deviation of the parameters at first; ours."""


class Engorgio(Attack):
    """Words that are added and the text behind them are parameters, which Adam descends.

    Dong et al., "An Engorgio Prompt Makes Large Language Model Babble on", ICLR 2025
    (arXiv 2412.19394). Parameters θ (S, vocabulary) become rows by Gumbel-softmax,
    E_i = softmax((θ_i + g_i) / τ) · embedding; the loss is the mean over i of
    CE(softmax θ_{i+1}, p_{i+1}) (self-mentor: the text is what the model would write after it) plus
    α times the mean of p_i(end), p_i being what the model says after E_{1:i}.

    Divergences: θ stands for the words of the budget, of those that can be written, and for the
    text up to the cap, and the prompt and the template stay (theirs: a trigger of 32 tokens alone);
    the loss is a mean over the text, as words that are added need not be likely (theirs: over the
    trigger, too); the words are read out and judged by executed work at every step, and the best
    are returned (theirs: drawn from the last θ); with an effort of 50 gradients, there are 38 steps
    (theirs: 3,000 to 5,000). Official code (jianshuod/Engorgio-prompt): the trigger is drawn, not
    the argmax, as ``read_out="sample"`` does; its ``generate`` leaves out ``top_k``, so that 50
    applies, though the arguments say 0; its lengths include the prompt and end at the first padding
    token; it says itself that results depend on the start.

    Args:
        victim: one that writes text and can be asked what follows rows that are no words.
        threat: words that are added: ``"suffix:10"``, ``"prefix:10"``.
        steps: gradient evaluations that the effort is equal to: a step is one of them, and a
            prompt that is judged.
        rate: of Adam.
        alpha: α.
        tau: τ.
        read_out: words as ``"sample"``, drawn with the noise of the step, or as ``"argmax"``.
        seed: of θ and of all noise.

    Raises:
        NotApplicable: for a victim that writes no text, or a threat that adds no words.
        UsageError: for a read-out that is none, and numbers that are not positive.
    """

    takes = "tokens"

    steps: int = 50
    rate: float = 0.1
    alpha: float = 1.0
    tau: float = 1.0
    read_out: str = "sample"

    def prepare(self) -> None:
        if self.read_out not in READ_OUTS:
            raise UsageError(f"read_out = {self.read_out!r}: give 'argmax' or 'sample'")
        if min(self.steps, self.rate, self.tau) <= 0 or self.alpha < 0:
            raise UsageError(
                f"steps = {self.steps}, rate = {self.rate}, tau = {self.tau} and alpha = "
                f"{self.alpha}: give positive numbers, of alpha at least 0"
            )
        if not isinstance(self.threat, Added):
            raise NotApplicable(
                f"Engorgio makes up words that are added, and {self.threat} adds none: give "
                "suffix:10 or prefix:10"
            )

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        if isinstance(victim, Writes) and isinstance(victim.task, Text):
            return None
        return (
            f"{victim.name} writes no text, or cannot be asked what follows rows that are no words "
            "(effattack.victim.writing.Writes): Engorgio attacks models that do"
        )

    @property
    def descents(self) -> int:
        """Steps of Adam."""
        return -(-self.steps * GRADIENT // (GRADIENT + 1))

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        assert isinstance(self.threat, Added)
        best, rows = Best.of(clean, goal), torch.arange(len(clean), device=clean.device)
        wide = widen(best, clean, self.threat)
        relaxed = Relaxed.of(clean, self.threat, goal.victim)
        theta = [
            SPREAD * torch.randn(shape, generator=generator).to(relaxed.read)
            for shape in relaxed.shapes
        ]
        moments = [Moments.none(part) for part in theta]
        for step in range(self.descents):
            going = unfinished(best, rows, goal)
            if going is not None and not going.any():
                break
            leaves = [part.requires_grad_() for part in theta]
            noise = [_gumbel(part, generator) for part in theta]
            with torch.enable_grad():
                loss = relaxed.loss(leaves, noise, self.tau, self.alpha)
                gradients = torch.autograd.grad(loss.sum(), leaves)
            scores = theta[0] + noise[0] if self.read_out == "sample" else theta[0]
            found = relaxed.read_out(scores.detach(), self.threat, generator)
            with torch.no_grad():
                rank = ranked(goal.victim.trace(found), goal, -loss)
            best.update(rows, padded(found, wide), rank)
            moments = [m.after(g) for m, g in zip(moments, gradients, strict=True)]
            theta = [
                part.detach() - self.rate * memory.direction()
                for part, memory in zip(theta, moments, strict=True)
            ]
            goal.callback(best.step(0, step + 1, self.descents))
        return best.inputs


@dataclass(frozen=True)
class Relaxed:
    """Prompts whose added words, and the text behind them, are distributions over words."""

    victim: Any
    """A :class:`~effattack.victim.Victim` that is a :class:`~effattack.victim.writing.Writes`."""
    clean: Tensor
    prompts: Tensor
    """The clean prompts with all words that may be added, whichever they are."""
    places: Tensor
    """(B, k): where those stand."""
    words: Tensor
    """(n,): ids that can be written."""
    asked: Tensor
    """(n, width): their rows in a prompt."""
    read: Tensor
    """(vocabulary, width): rows of all ids in a text, whose vocabulary may be another."""

    @classmethod
    def of(cls, clean: Tensor, threat: Added, victim: Victim) -> Relaxed:
        assert isinstance(victim, Writes)
        words = torch.tensor(threat.words(), device=clean.device)
        asked = victim.lift(words[:, None], torch.zeros_like(words)[:, None]).rows[:, 0]
        nothing = victim.read_by(torch.zeros(1, 1, dtype=torch.long, device=clean.device))
        first, _ = victim.continued(clean[:1], nothing)
        ids = torch.arange(first.shape[2], device=clean.device)
        read = victim.read_by(ids[:, None].expand(-1, 2))[:, 0]
        places = threat.editable(clean)
        return cls(
            victim, clean, threat.largest(clean), places, words, asked.detach(), read.detach()
        )

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of θ: of the words (B, k, n), and of the text (B, cap, vocabulary)."""
        count, added = self.places.shape
        return (count, added, len(self.words)), (count, self.victim.cap, len(self.read))

    def loss(self, theta: list[Tensor], noise: list[Tensor], tau: float, alpha: float) -> Tensor:
        """(B,): self-mentor and end, means over the text."""
        words, text = (
            ((part + drawn) / tau).softmax(-1) for part, drawn in zip(theta, noise, strict=True)
        )
        leaf = Leaf(words @ self.asked, self.places)
        follows, _ = self.victim.continued(self.prompts, (text @ self.read)[:, :-1], leaf)
        logs = follows.log_softmax(-1)
        mentored = -(theta[1].softmax(-1) * logs).sum(-1).mean(1)
        return mentored + alpha * logs[..., self.victim.task.end].exp().mean(1)

    def read_out(self, scores: Tensor, threat: Added, generator: Generator) -> Tensor:
        """The prompts whose words score highest; the clean one where it could not be sent."""
        found = self.clean
        for slot, words in enumerate(self.words[scores.argmax(-1)].T):
            found = threat.put(found, self.clean, torch.full_like(words, slot), words, generator)
        return threat.on_grid(found, self.clean)


def _gumbel(like: Tensor, generator: Generator) -> Tensor:
    """Noise g with P(argmax(θ + g) = j) = softmax(θ)_j."""
    drawn = torch.empty(like.shape).exponential_(generator=generator)
    return -drawn.clamp_min(torch.finfo(drawn.dtype).tiny).log().to(like)
