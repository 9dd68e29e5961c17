"""The table of scores: all that is said of a victim under an attack, an entry each.

A new score is one entry here. From a package outside it is an entry point of the group
``effattack.scores``, or ``module:object`` in a limit: a :class:`~effattack.results.score.Score`.
"""

from __future__ import annotations

from functools import cache
from math import inf

from effattack.errors import UsageError, unknown_name
from effattack.registry import entries, named
from effattack.registry.borders import blaming
from effattack.results.score import HIDDEN, Score, Shown
from effattack.results.unmeasured import (
    no_cap,
    no_certificate,
    no_count,
    no_dense,
    no_energy,
    no_latency,
    no_savings,
    no_timing,
    no_tokens,
    no_twin,
    no_work,
    nobody,
)

GROUP = "effattack.scores"
IDENTITY = ("victim", "family", "attack", "kind", "threat", "eps")
"""Columns that say what a row of scores is of."""
MACS = "MACs per {one}, mean"
OVER_CLEAN = "/\u00a0clean"
OUTPUT = "Output per {one}"
GAINED = "Gained per token sent"


def _amplification(name: str, shown: Shown, count: str = "") -> Score:
    """Work gained per token that the attacker sends."""
    return Score(
        f"amplification_{name}",
        lambda rows: rows.amplification(count or name),
        better="less",
        range=(-inf, inf),
        empty=no_tokens,
        shown=shown,
    )


SCORES = (
    Score(
        "twin_agreement",
        lambda rows: rows.share("as_twin"),
        better="more",
        range=(0, 1),
        answers=True,
        bounds="twin_agreement",
        share=True,
        empty=no_twin,
        shown=Shown(
            group="",
            flat=None,
            meaning="share of {many} on which what ships takes the same decisions and gives the "
            "same answer as its twin, the model that attacks were crafted on",
        ),
    ),
    Score("unlike_twin", lambda rows: rows.unlike_twin, empty=no_twin, shown=HIDDEN),
    Score("samples", len, shown=Shown("count", "{Many}", "Data", "seeds pooled", flat=None)),
    Score(
        "accuracy",
        lambda rows: rows.share("right"),
        better="more",
        range=(0, 1),
        answers=True,
        bounds="accuracy",
        share=True,
        kept=True,
        shown=Shown(
            "percent",
            "Accuracy",
            "Answer",
            "against the label",
            brief="acc.",
            meaning="share of answers that are right by the label",
        ),
    ),
    Score(
        "agreement",
        lambda rows: rows.share("same"),
        better="more",
        range=(0, 1),
        answers=True,
        bounds="agreement",
        share=True,
        kept=True,
        shown=Shown(
            "percent",
            "Agreement",
            "Answer",
            "with the clean answer",
            brief="agree",
            meaning="share of answers that agree with the same model's answer to the clean {one}; "
            "labels play no part",
        ),
    ),
    Score(
        "macs",
        lambda rows: rows.mean("macs"),
        better="less",
        kept=True,
        empty=no_work,
        shown=Shown("macs", "Attacked", MACS, flat="MACs"),
    ),
    Score(
        "clean_macs",
        lambda rows: rows.mean("clean_macs"),
        empty=no_work,
        shown=Shown("macs", "Clean", MACS, first=True, flat=None),
    ),
    Score("dense_macs", lambda rows: rows.mean("dense_macs"), shown=HIDDEN),
    Score("max_macs", lambda rows: rows.mean("max_macs"), shown=HIDDEN),
    Score(
        "reachable",
        lambda rows: max(rows["work"].max(), rows["clean_work"].max()),
        shown=HIDDEN,
    ),
    Score(
        "macs_ratio",
        lambda rows: rows.ratio("macs"),
        better="less",
        empty=no_work,
        kept=True,
        shown=Shown("ratio", OVER_CLEAN, MACS, flat="MACs / clean", brief="MACs"),
    ),
    Score(
        "attack_success",
        lambda rows: rows.success(),
        better="less",
        range=(-inf, 1),
        empty=no_savings,
        shown=Shown(
            "percent",
            "Attack success",
            "Score",
            meaning="share of the remaining head-room that the attack fills: (attacked − clean) / "
            "(max − clean), over all scored {many}; 0 % changed nothing, 100 % reached the max",
        ),
    ),
    Score(
        "attack_success_dense",
        lambda rows: rows.success("macs", "dense_macs"),
        better="less",
        empty=no_dense,
        shown=Shown("percent", "Success, dense", "Score", "as papers divide", flat=None),
    ),
    Score(
        "savings_retained",
        lambda rows: rows.savings,
        better="more",
        range=(-inf, 1),
        bounds="savings_retained",
        share=True,
        kept=True,
        empty=no_savings,
        shown=Shown(
            "retained",
            "Savings retained",
            "Score",
            first=True,
            brief="retained",
            interval=True,
            meaning="1 − attack success: what the mechanism still saves under attack",
        ),
    ),
    Score("slow_and_wrong", lambda rows: rows.slow_and_wrong, shown=HIDDEN),
    Score("knife_edge", lambda rows: rows.mean("knife_edge"), shown=HIDDEN),
    Score("constant", lambda rows: rows.constant, shown=HIDDEN),
    Score("inside", lambda rows: bool(rows["inside"].all()), shown=HIDDEN),
    Score("found_by", lambda rows: rows.first("found_by"), shown=HIDDEN),
    Score(
        "latency_ratio",
        lambda rows: rows.latency,
        better="less",
        timed=True,
        bounds="latency",
        judged_by="latency_low",
        kept=True,
        empty=no_latency,
        shown=Shown("ratio", OVER_CLEAN, "Latency", "median", flat="Latency", interval=True),
    ),
    Score(
        "latency_mean_ratio",
        lambda rows: rows.mean_seconds,
        empty=no_timing,
        shown=Shown("ratio", "Of means", "Latency", OVER_CLEAN, flat=None),
    ),
    Score(
        "latency_p95_ratio",
        lambda rows: float(rows.slowdowns.quantile(0.95)),
        empty=no_timing,
        shown=Shown("ratio", "p95", "Latency", OVER_CLEAN, flat=None),
    ),
    Score(
        "clock", lambda rows: rows.clock, empty=no_timing, shown=Shown("text", "Clock", "Latency")
    ),
    Score(
        "energy_ratio",
        lambda rows: rows.ratio("joules"),
        better="less",
        timed=True,
        kept=True,
        empty=no_energy,
        shown=Shown("ratio", OVER_CLEAN, "Energy", flat="Energy"),
    ),
    Score("modelled_energy_ratio", lambda rows: rows.ratio("modelled_joules"), shown=HIDDEN),
    Score("currency", lambda rows: rows.first("currency"), shown=HIDDEN),
    Score("work", lambda rows: rows.mean("work"), shown=HIDDEN),
    Score("clean_work", lambda rows: rows.mean("clean_work"), shown=HIDDEN),
    Score("max_work", lambda rows: rows.mean("max_work"), shown=HIDDEN),
    Score(
        "equals_n_requests",
        lambda rows: rows.ratio("work"),
        better="less",
        empty=no_work,
        shown=Shown(
            "number",
            "Equals clean requests",
            "Attacker",
            "what sending more would take",
            headline=True,
            meaning="how many clean requests cost as much as one attacked request; whoever sends "
            "more than that needs no attack",
        ),
    ),
    Score(
        "knowledge",
        lambda rows: rows.knowledge,
        empty=nobody,
        shown=Shown(
            "text",
            "Knows",
            "Attacker",
            "of the victim",
            headline=True,
            meaning="what the attacker sees: all of the victim (white box), another model in its "
            "place (transfer), only what it answers (queries), or nothing",
        ),
    ),
    Score(
        "certified_retained",
        lambda rows: rows.certified_retained,
        better="more",
        range=(-inf, 1),
        share=True,
        proven=True,
        empty=no_certificate,
        shown=Shown(
            "percent",
            group="",
            flat=None,
            meaning="a lower bound on savings retained that no attack in the threat passes, "
            "whoever finds it",
        ),
    ),
    Score(
        "certified_factor",
        lambda rows: rows.certified_factor,
        better="less",
        proven=True,
        empty=no_certificate,
        shown=Shown(
            "ratio",
            group="",
            flat=None,
            meaning="how many clean requests an attacked one of the threat costs at most, whoever "
            "attacks",
        ),
    ),
    Score(
        "output_tokens",
        lambda rows: rows.mean("output_tokens"),
        better="less",
        empty=no_count,
        shown=Shown("number", "Tokens", OUTPUT, "mean", flat="Output tokens", sparse=True),
    ),
    Score(
        "clean_output_tokens",
        lambda rows: rows.mean("clean_output_tokens"),
        empty=no_count,
        shown=Shown("number", "Tokens, clean", OUTPUT, "mean", flat=None, sparse=True),
    ),
    Score(
        "cap_hit_rate",
        lambda rows: rows.share("capped"),
        better="less",
        range=(0, 1),
        bounds="cap_hit_rate",
        share=True,
        kept=True,
        empty=no_cap,
        shown=Shown(
            "percent",
            "At the cap",
            OUTPUT,
            flat="At the cap",
            interval=True,
            sparse=True,
            meaning="share of texts that the cap ended; they are censored: what they would have "
            "cost under a larger one is not known, so that no mean and no ratio stands alone",
        ),
    ),
    Score(
        "clean_cap_hit_rate",
        lambda rows: rows.share("clean_capped").value,
        empty=no_cap,
        shown=Shown("percent", "At the cap, clean", OUTPUT, flat=None, sparse=True),
    ),
    _amplification(
        "passes",
        Shown(
            "number",
            "Passes",
            GAINED,
            flat="Passes gained per token sent",
            sparse=True,
            meaning="(attacked − clean) passes over the tokens of the attacked prompts, in sums "
            "over {many}: what each token that the attacker sends buys him. The whole prompt "
            "counts, the template around it does not; MACs and bytes likewise",
        ),
    ),
    _amplification(
        "macs", Shown("amount", "MACs", GAINED, flat="MACs gained per token sent", sparse=True)
    ),
    _amplification(
        "bytes",
        Shown(
            "amount",
            "Bytes",
            GAINED,
            "moved, modelled",
            flat="Bytes gained per token sent",
            sparse=True,
        ),
        count="moved_bytes",
    ),
)


_NAMED: dict[str, Score] = {}
"""Those that this process was told of as ``module:object``."""


def known() -> dict[str, Score]:
    """Every score by name: ours, those of installed packages, and those named by their path.

    Raises:
        UsageError: for an entry point that is no score, or takes the name of another.
    """
    found: dict[str, Score] = {}
    for score in dict.fromkeys((*SCORES, *_installed(), *_NAMED.values())):
        taken = {column for other in found.values() for column in other.columns} | {*IDENTITY}
        if clash := taken & {*score.columns}:
            raise UsageError(
                f"score {score.name!r}: the score table has a column {min(clash)!r} already: give "
                "the score another name"
            )
        found[score.name] = score
    return found


def headlines() -> list[Score]:
    """Those that stand beside every verdict."""
    return [score for score in known().values() if score.shown.headline]


def judged(name: str) -> Score | None:
    """The score that a limit of this name is on, be it of its bound; None if there is none.

    Raises:
        UsageError: for ``module:object`` that is no score.
    """
    if ":" in name:
        score = _NAMED[name] = _loaded(name)
        return score
    return limited().get(name)


def called(name: str) -> Score:
    """The score of that name, or at ``module:object``: from now on, tables show it, too.

    Raises:
        UsageError: for a name that nobody registered, or what is no score.
    """
    score = judged(name) if ":" in name else known().get(name)
    if score is None:
        ours = [score.name for score in SCORES]
        raise unknown_name("score", name, ours, known().keys() - ours)
    return score


def limited() -> dict[str, Score]:
    """What a limit may name -> the score that it is on."""
    scores = [score for score in known().values() if score.better]
    return {name: s for s in scores for name in (s.name, s.judged_by) if name}


@cache
def _installed() -> tuple[Score, ...]:
    return tuple(_loaded(name) for name in entries(GROUP))


def _loaded(name: str) -> Score:
    with blaming(f"score {name}"):
        thing = named(GROUP, name)
    if not isinstance(thing, Score):
        raise UsageError(
            f"{name} is {type(thing).__name__}, no score: make it an effattack.Score(name, of=...)"
        )
    return thing
