"""NMTSloth, Verbose Samples and LoopLLM: published losses on models that write text.

All of them under the coordinate gradient, at equal effort; Engorgio, which brings a search of its
own, is :mod:`effattack.attacks.published.engorgio`.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from effattack.attacks.base import GradientAttack
from effattack.attacks.house.slowdown import house_search
from effattack.attacks.objectives import BatchGoal, Objective
from effattack.attacks.published.generators_losses import NeitherEndNorWritten, Repeating, Verbose
from effattack.attacks.searches.best import Best
from effattack.attacks.searches.projected import ProjectedGradient
from effattack.domains.tokens import as_wide
from effattack.threats.edits import Edits


class NMTSloth(GradientAttack):
    """NMTSloth's loss, which is LLMEffiChecker's, under the coordinate gradient.

    Chen et al., "NMTSloth: Understanding and Testing Efficiency Degradation of Neural Machine
    Translation Systems", ESEC/FSE 2022 (arXiv 2210.03696); as LLMEffiChecker in TOSEM 33(7), 2024.
    Official code SeekingDream/FSE22_NMTSloth, commit f7d2bb9. Neither the end token nor what is
    written should be likely: :class:`.generators_losses.NeitherEndNorWritten`.

    Divergences: the loss is theirs, the search ours, so that all compare at equal effort (theirs:
    characters inserted into the most critical token, the 50 words of the largest linearised gain in
    every place, or words of the same part of speech; all are decoded, the longest goes on); the
    gradient is taken at the place of a word (theirs: in the embedding matrix, which a tied head and
    every repeated word share); the end token counts once where it was written, and a text that the
    cap ended has no halved step; the logit of padding stays what it is (theirs: set to 1e-12).

    Args:
        victim: one that writes text.
        threat: what may be changed, such as ``"suffix:3"``.
        steps: gradient evaluations that the effort is equal to.
        seed: of the search.

    Raises:
        NotApplicable: for a victim that writes no text.
    """

    takes = "tokens"

    steps: int = 50

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        return NeitherEndNorWritten(), house_search(self.steps)


class VerboseSamples(GradientAttack):
    """The terms of Verbose Images and Verbose Samples on prompts, under the coordinate gradient.

    Gao et al., "Inducing High Energy-Latency of Large Vision-Language Models with Verbose Images",
    ICLR 2024, official code commit 8658c87; "Energy-Latency Manipulation of Multi-modal Large
    Language Models via Verbose Samples", 2024 (arXiv 2404.16557). The end token late, every step
    unsure, states diverse: :class:`.generators_losses.Verbose`.

    Divergences: words are changed, not pixels, by our search at equal effort (theirs: 1,000 signed
    steps on an image); terms stand in logarithms, whose gradient is the paper's up to a factor, at
    the balance of its first iteration, T₁ = −20 and T₂ = 1 (theirs: T₁ = 10 ln t − 20,
    T₂ = 0.5 ln t + 1, with a momentum of 0.9 on the weights), as T₁ passes 0 within the few steps
    that we take; the best iterate by executed work is returned (theirs: the maximum over all
    iterates of three sampled texts each).

    Args:
        victim: one that writes text.
        threat: what may be changed, such as ``"suffix:3"``.
        steps: gradient evaluations that the effort is equal to.
        end: weight of the end token's probability, 1 / |T₁|.
        diversity: weight of the states' nuclear norm, 1 / |T₂|.
        seed: of the search.

    Raises:
        NotApplicable: for a victim that writes no text.
    """

    takes = "tokens"

    steps: int = 50
    end: float = 0.05
    diversity: float = 1.0

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        return Verbose(self.end, self.diversity), house_search(self.steps)


class LoopLLM(GradientAttack):
    """LoopLLM's loss under the coordinate gradient, from a prompt that repeats the segment.

    "LoopLLM: Transferable Energy-Latency Attacks in LLMs via Repetitive Generation", 2025; official
    code neuron-insight-lab/LoopLLM, commit dfcd867. What is written should be any order of the
    words of a short segment, which the words to be changed repeat at first:
    :class:`.generators_losses.Repeating`.

    Divergences: candidates are judged by the work of the texts that they lead to, and then by the
    loss on these (theirs: by the loss on the text of the last suffix), twelve per step (theirs:
    128); the words of the segment are drawn by the seed from all that can be written (theirs: "*",
    of longer segments then "%", "&", "@" and "#"; drawn words stand commented out); gradients are
    not scaled to one length per place; ids are restricted to what the tokenizer reads again, not
    to ASCII; steps do not end early where entropy is low. The ensemble for transfer is not there.

    Args:
        victim: one that writes text.
        threat: what may be changed, such as ``"suffix:3"`` (theirs: 30 tokens behind the prompt).
        steps: gradient evaluations that the effort is equal to.
        segment: its words (theirs: 1).
        seed: of the segment and of the search.

    Raises:
        NotApplicable: for a victim that writes no text.
        UsageError: for a segment without words.
    """

    takes = "tokens"

    steps: int = 50
    segment: int = 1

    def composed(self) -> tuple[Repeating, ProjectedGradient]:
        return Repeating(self.segment, self.seed), house_search(self.steps)

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        assert isinstance(self.threat, Edits)
        assert isinstance(self.objective, Repeating)
        best = Best.of(clean, goal)
        with torch.no_grad():
            best.judged_by(self.objective(goal.trace, goal))
        segment = self.objective.segment(self.threat.domain)
        start = repeated(clean, self.threat, segment.to(clean.device), generator)
        self.search.climb(best, start, clean, self.threat, self.objective, goal)
        return best.inputs


def repeated(clean: Tensor, threat: Edits, segment: Tensor, generator: Generator) -> Tensor:
    """Prompts (B, L) whose places that may change repeat a segment (n,), as far as the budget
    goes."""
    found, free = clean, threat.writable(clean)
    for slot in range(free.shape[1]):
        words = segment[slot % len(segment)].expand(len(clean))
        slots = torch.full_like(words, slot)
        written = threat.put(found, clean, slots, words, generator)
        found = torch.where(free[:, slot, None], *as_wide(written, found))
    return threat.on_grid(found, clean)
