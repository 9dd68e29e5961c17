"""Losses of papers on models that write; see :mod:`effattack.attacks.published.generators`,
:mod:`.verbose_images` and :mod:`.slothspeech`.

All are means over the steps that happened. p_t are the probabilities that token t was drawn from,
y_t is what was written, e the end token.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from effattack.attacks.objectives import Goal, Objective
from effattack.attacks.searches.penalised import Pull
from effattack.domains.tokens import PAD, Tokens
from effattack.errors import NotApplicable, UsageError
from effattack.tasks import Text
from effattack.victim import Trace, Victim
from effattack.victim.writing import PROMPTS, STEPS, Writes, steps_of

AT_ONCE = 2**26
"""Logits that are held at once where texts are read once more."""


class OfText(Objective):
    """An objective on what a text was drawn from."""

    def check(self, trace: Trace, victim: Victim) -> None:
        if PROMPTS not in trace.aux or not isinstance(victim, Writes) or _end(victim) is None:
            raise NotApplicable(
                f"{victim.name} writes no text, or shows no logits of its steps: NMTSloth, "
                "VerboseSamples, LoopLLM and SlothSpeech attack models that do"
            )

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        if STEPS in trace.aux:
            return self._of_steps(trace, goal)
        assert isinstance(goal.victim, Writes)
        most = AT_ONCE // (trace.logits.shape[1] * goal.victim.vocabulary)
        parts = (whole.split(max(1, most)) for whole in (trace.logits, trace.aux[PROMPTS]))
        return torch.cat(
            [
                self._of_steps(trace._replace(logits=written, aux={PROMPTS: prompts}), goal)
                for written, prompts in zip(*parts, strict=True)
            ]
        )

    def _of_steps(self, trace: Trace, goal: Goal) -> Tensor:
        logits, states = steps_of(trace, goal.victim)
        return self.of_text(logits, trace.logits[:, : logits.shape[1]], goal, states)

    @abstractmethod
    def of_text(self, logits: Tensor, written: Tensor, goal: Goal, states: Tensor) -> Tensor:
        """Logits (B, n, vocabulary), the ids (B, n) drawn from them, padded, and the states
        (B, n, width) that the head made the logits of -> (B,)."""


@dataclass(frozen=True)
class NeitherEndNorWritten(OfText):
    """NMTSloth's loss, turned: mean over t of log(1 − p_t(e) − p_t(y_t)).

    That is − BCE(p_t(e) + p_t(y_t), 0). Where the end token itself was written it counts once, for
    which the official code halves the last step (commit f7d2bb9).
    """

    def of_text(self, logits: Tensor, written: Tensor, goal: Goal, states: Tensor) -> Tensor:
        place = torch.arange(logits.shape[-1], device=logits.device)
        named = (place == _end(goal.victim)) | (place == written[..., None])
        rest = logits.softmax(-1).masked_fill(named, 0).sum(-1)
        return over_steps(rest.clamp_min(torch.finfo(rest.dtype).tiny).log(), written)


class VerboseTerms(OfText):
    """What Verbose Images asks for, apart and in logarithms: (B, 3), log of L_unc, L_end and ‖H‖_*.

    L_unc is the mean over t of KL(uniform ‖ p_t), L_end the mean of p_t(e), and ‖H‖_* the nuclear
    norm of the states (n, width) that the tokens were drawn from. The first two are to fall.
    """

    def of_text(self, logits: Tensor, written: Tensor, goal: Goal, states: Tensor) -> Tensor:
        logs = logits.log_softmax(-1)
        happened = written != PAD
        apart = -math.log(logs.shape[-1]) - logs.mean(-1)
        unsure = over_steps(apart, written)
        ends = logs[..., _end(goal.victim)].masked_fill(~happened, -torch.inf)
        end = ends.logsumexp(-1) - happened.sum(-1).log()
        states = states * happened[..., None]
        norm = torch.linalg.matrix_norm(states, "nuc")
        tiny = torch.finfo(logs.dtype).tiny
        unsure, norm = (value.clamp_min(tiny).log() for value in (unsure, norm))
        return torch.stack([unsure, end, norm], 1)


@dataclass(frozen=True)
class Verbose(OfText):
    """The three terms of Verbose Images, turned and in logarithms, at one balance.

    − log L_unc − w_end · log L_end + w_div · log ‖H‖_* of :class:`VerboseTerms`. The paper's loss
    is L_unc + λ₁ L_end − λ₂ ‖H‖_* with λ_j = |L_unc / (L_j · T_j)|, anew at every iterate and
    without a gradient; so its gradient is that of this sum times L_unc, with w_j = 1 / |T_j|. In
    logarithms, iterates compare.

    Args:
        end: w_end.
        diversity: w_div.
    """

    end: float = 0.05
    diversity: float = 1.0

    def of_text(self, logits: Tensor, written: Tensor, goal: Goal, states: Tensor) -> Tensor:
        unsure, end, norm = VerboseTerms().of_text(logits, written, goal, states).unbind(1)
        return self.diversity * norm - unsure - self.end * end


@dataclass(frozen=True)
class Repeating(OfText):
    """LoopLLM's loss, turned: mean over t of log Σ p_t(s), s in a segment of words.

    Args:
        length: words of the segment, drawn from those that can be written.
        seed: of the draw.

    Raises:
        UsageError: for a segment without words.
    """

    length: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UsageError(f"length = {self.length}: a segment has at least one word")

    def check(self, trace: Trace, victim: Victim) -> None:
        super().check(trace, victim)
        assert isinstance(victim, Writes)
        if victim.vocabulary != getattr(victim.domain, "vocabulary", None):
            raise NotApplicable(
                f"{victim.name} writes in another vocabulary than it reads: LoopLLM repeats in the "
                "prompt what is to be written"
            )

    def segment(self, domain: Tokens) -> Tensor:
        """(length,) ids, each once."""
        words = domain.allowed().nonzero()[:, 0]
        order = torch.randperm(len(words), generator=Generator().manual_seed(self.seed))
        return words[order[: self.length]]

    def of_text(self, logits: Tensor, written: Tensor, goal: Goal, states: Tensor) -> Tensor:
        assert isinstance(goal.victim.domain, Tokens)
        segment = self.segment(goal.victim.domain).to(logits.device)
        return over_steps(logits.log_softmax(-1)[..., segment].logsumexp(-1), written)


@dataclass(frozen=True)
class EndLogits(OfText, Pull):
    """SlothSpeech's loss without its price on the change, turned: − Σ_t z_t(e) + z_T(second).

    z_t are the logits of step t, T is the last step, and *second* what has the second largest logit
    there: the rival of the end token where the text came to its end.
    """

    def of_text(self, logits: Tensor, written: Tensor, goal: Goal, states: Tensor) -> Tensor:
        happened = written != PAD
        ends = logits[..., _end(goal.victim)].masked_fill(~happened, 0).sum(1)
        last = logits[torch.arange(len(logits), device=logits.device), happened.sum(1) - 1]
        return last.topk(2).values[:, 1] - ends


def over_steps(values: Tensor, written: Tensor) -> Tensor:
    """Mean over the steps that happened: (B, n), (B, n) -> (B,)."""
    happened = written != PAD
    return torch.where(happened, values, 0).sum(1) / happened.sum(1)


def _end(victim: Victim) -> int | None:
    """The end token of what a victim writes."""
    return victim.task.end if isinstance(victim.task, Text) else None


GENERATORS = (NeitherEndNorWritten(), Verbose(), Repeating())
"""What joins an ensemble, with the settings of their attacks."""
