"""What is known of a graph: facts in the order in which they were learned, and questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from effattack.domains.graph import Fact, Graph
from effattack.domains.tokens import PAD
from effattack.errors import UsageError

Named = tuple[str, str, str]
"""Head, relation, tail."""


class Question(NamedTuple):
    """What a step leads to from an entity, and the fact that says it."""

    head: int
    step: int
    answer: int
    fact: Fact


class Knowledge:
    """The facts that answers are gathered from.

    Args:
        domain: of the queries; the facts are its own, the newest last.
    """

    def __init__(self, domain: Graph) -> None:
        self.domain = domain
        self.touching: dict[int, list[Fact]] = defaultdict(list)
        self.answers: dict[tuple[int, int], set[int]] = defaultdict(set)
        for fact in dict.fromkeys(reversed(domain.facts)):
            for end in {fact[0], fact[2]}:
                self.touching[end].append(fact)
        for fact in domain.facts:
            for question in self.asked(fact):
                self.answers[question.head, question.step].add(question.answer)

    def asked(self, fact: Fact) -> tuple[Question, Question]:
        """The two questions that a fact answers: along its relation, and against it."""
        head, relation, tail = fact
        back = int(self.domain.back(relation))
        return Question(head, relation, tail, fact), Question(tail, back, head, fact)

    def queries(self, questions: Sequence[Question]) -> tuple[Tensor, Tensor]:
        """Inputs (B, L) and answers (B,); the fact that says it is never in the neighbourhood."""
        rows = [self._around(question) for question in questions]
        ids = torch.full((len(rows), self.domain.longest), PAD)
        for row, found in zip(ids, rows, strict=True):
            row[: len(found)] = torch.tensor(found)
        return ids, torch.tensor([question.answer for question in questions])

    def _around(self, question: Question) -> list[int]:
        def known(end: int) -> Iterator[Fact]:
            return (fact for fact in self.touching[end] if fact != question.fact)

        return self.domain.gathered(question.head, question.step, known)

    def others(self, questions: Sequence[Question]) -> Tensor:
        """(B, entities) bool: right answers that are known beside the one that is asked for."""
        found = torch.zeros(len(questions), len(self.domain.entities), dtype=torch.bool)
        for row, (head, step, answer, _) in zip(found, questions, strict=True):
            row[[*self.answers[head, step]]] = True
            row[answer] = False
        return found


def read_triples(path: Path | str) -> list[Named]:
    """The lines "head <tab> relation <tab> tail" of a file.

    Raises:
        UsageError: for a file that cannot be read, has none, or a line that is no such triple.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}): give a text file of triples") from error
    found: list[Named] = []
    for number, line in enumerate(lines, 1):
        parts = line.split("\t")
        if len(parts) != 3 or not all(parts):
            raise UsageError(
                f"{path}, line {number}: {line[:60]!r} is no triple: give head, relation and tail "
                "with tabs between them"
            )
        found.append((parts[0], parts[1], parts[2]))
    if not found:
        raise UsageError(f"{path} has no triples: give one per line")
    return found
