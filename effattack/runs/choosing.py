"""Which stored inputs a victim is judged on: its own, or those of another that it could be fed."""

from __future__ import annotations

import json
from collections.abc import Sequence

from effattack.errors import UsageError
from effattack.inputs.corpus import Corpus
from effattack.victim import Victim


def chosen(victim: Victim, corpora: Sequence[Corpus]) -> list[Corpus]:
    """Those of this victim, by its name; else those that it takes, if they are of one other victim.

    Raises:
        UsageError: if there are none, saying what differs; or if they are of several victims.
    """
    if own := [corpus for corpus in corpora if corpus.about.victim == victim.name]:
        return own
    fitting = [corpus for corpus in corpora if not _differences(victim, corpus)]
    names = dict.fromkeys(corpus.about.victim for corpus in fitting)
    if len(names) > 1:
        raise UsageError(
            f"no inputs were recorded on {victim.name}, and those of {', '.join(names)} would "
            "fit: give the file of one of them"
        )
    if not fitting:
        expect_fit(victim, corpora[0])
    return fitting


def expect_fit(victim: Victim, corpus: Corpus) -> None:
    """Refuse inputs that are not a victim's.

    Raises:
        UsageError: with what differs.
    """
    if differ := _differences(victim, corpus):
        raise UsageError(
            f"{corpus.name} holds inputs of {corpus.about.victim}, which {victim.name} does not "
            f"take: {'; '.join(differ)}: record a corpus on a victim of such inputs"
        )


def _differences(victim: Victim, corpus: Corpus) -> list[str]:
    """What of domain and classes is not as it was recorded."""
    here, there = (
        json.loads(json.dumps({**described, "classes": classes}))
        for described, classes in (
            (victim.domain.describe(), victim.num_classes),
            (corpus.about.domain, corpus.about.classes),
        )
    )
    keys = ["kind"] if here["kind"] != there.get("kind") else dict.fromkeys([*here, *there])
    return [
        f"{key} {there.get(key)} there, {here.get(key)} here"
        for key in keys
        if key not in ("noun", "nouns") and here.get(key) != there.get(key)
    ]
