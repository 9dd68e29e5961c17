"""Stored worst inputs in place of attacks: what the plugin's fixtures give under
--effattack-replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from effattack.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from effattack.attacks import Attack
    from effattack.domains import Batch
    from effattack.inputs.corpus import Corpus
    from effattack.pytest_plugin.options import Settings
    from effattack.results.evaluation import Evaluation
    from effattack.victim import Victim


def data(settings: Settings, victim: Victim) -> tuple[Batch, Tensor]:
    """The clean inputs that are stored for a victim, and their labels."""
    from effattack.runs.replay import stored_inputs

    return stored_inputs(victim, _stored(settings, victim))


def replayed(
    settings: Settings,
    victim: Victim,
    inputs: Batch,
    attacks: Sequence[Attack | str],
    **arguments: Any,
) -> Evaluation:
    """A victim on what is stored for these inputs, in the budgets that a test asks for, if any.

    Raises:
        UsageError: where that is nothing.
    """
    from effattack.cells.lineup import asked_threats
    from effattack.runs.replay import replay

    corpora, eps = _stored(settings, victim), arguments.get("eps", settings.budget)
    if attacks or eps is not None:
        asked = {str(threat) for threat in asked_threats(victim, attacks, eps)}
        there = dict.fromkeys(corpus.about.threat for corpus in corpora)
        corpora = [corpus for corpus in corpora if corpus.about.threat in asked]
        if not corpora:
            raise UsageError(
                f"nothing is stored for {victim.name} in {' or '.join(asked)}, only in "
                f"{', '.join(there)}: let the full run attack it there, and keep its corpora"
            )
    domain = victim.domain
    given = set(domain.fingerprints(domain.snap(domain.place(inputs, "cpu"))))
    rows = [[row for row, key in enumerate(c.keys) if key in given] for c in corpora]
    own = [corpus.take(kept) for corpus, kept in zip(corpora, rows, strict=True) if kept]
    if not own:
        raise UsageError(
            f"none of the {domain.nouns} that the test gives is stored for {victim.name}: let the "
            "full run attack them, and keep its corpora"
        )
    return replay(victim, own, arguments.get("by", settings.by))


def _stored(settings: Settings, victim: Victim) -> list[Corpus]:
    """The corpora of a victim; of another one that it may be judged on, where the user names it."""
    from effattack.inputs.corpus import read_corpora
    from effattack.runs.choosing import chosen

    assert settings.replay is not None
    corpora = read_corpora(settings.replay)
    if not settings.victim and victim.name not in {corpus.about.victim for corpus in corpora}:
        pytest.skip(f"nothing is stored for {victim.name} in {settings.replay}")
    return chosen(victim, corpora)
