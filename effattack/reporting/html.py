"""The report: one self-contained HTML file, made from the stored frames alone.

It makes no network request, and runs no script but its own; see :mod:`effattack.reporting.page`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from effattack.reporting import page, words, work
from effattack.reporting.brackets import brackets, track
from effattack.reporting.charts import figures
from effattack.reporting.comparison import compared, scatter
from effattack.reporting.gallery import gallery
from effattack.reporting.latency import clock_checks, timings
from effattack.reporting.meta import Meta, checks, limits, merged, section, skipped
from effattack.reporting.nouns import Noun, domain_of, shared_noun, with_domains
from effattack.reporting.tables import blocks, columns, groups, over_dense
from effattack.reporting.terms import terms
from effattack.reporting.twins import beside_twins
from effattack.reporting.verdict import Verdict, alarms, unit_of, verdicts
from effattack.reporting.words import missing
from effattack.results.unmeasured import NO_ENERGY

JUMPS = (
    ("comparison", "Side by side"),
    ("headline", "Savings retained"),
    ("scores", "Scores"),
    ("figures", "Figures"),
    ("examples", "Examples"),
    ("latency", "Latency and energy"),
    ("checks", "Self-checks"),
    ("skipped", "Skipped"),
    ("terms", "The words"),
    ("made", "How it was made"),
)
"""Sections of the page; the first is there where victims are compared."""


def render(samples: pd.DataFrame, scores: pd.DataFrame, meta: Meta) -> str:
    """The report as one HTML document.

    Args:
        samples: one row per victim, attack, eps, seed and sample.
        scores: one row per victim, attack and eps, with ``kind``, ``family`` and ``samples``.
        meta: how it was made; every key may be missing, and then the report says so.
    """
    scores = with_domains(scores, meta)
    found = verdicts(scores, meta)
    noun = shared_noun(meta, [verdict.victim for verdict in found])
    shown = columns(noun, scores)
    table, reasons = blocks(scores, found, meta, shown)
    scored = [verdict for verdict in found if verdict.shown]
    return page.render(
        "report.html",
        comparison=compared(found) if "compared" in meta else [],
        scatter=scatter(found, noun) if "compared" in meta else None,
        noun=noun,
        glossary=terms(
            noun, {str(domain_of(meta, verdict.victim)["kind"]) for verdict in found}, scores
        ),
        work=work,
        unit=work.unit_in(verdict.shown for verdict in scored if verdict.shown),
        limits=limits(meta),
        jumps=JUMPS if "compared" in meta else JUMPS[1:],
        twins=beside_twins(scores, meta),
        alarms=alarms(scores, meta),
        found=found,
        lead=_lead(found),
        facts=_facts(samples, scores, meta, noun),
        track=track,
        brackets={one.victim: brackets(scores, one, meta) for one in found},
        unit_of=unit_of,
        over_dense=over_dense,
        columns=shown,
        groups=groups(shown),
        blocks=table,
        reasons=reasons,
        figures=[figures(samples, scores, verdict) for verdict in scored],
        galleries=[gallery(samples, scores, verdict, meta) for verdict in scored],
        timings=timings(scores, meta),
        clock_checks=clock_checks(meta),
        energy=str(meta.get("energy") or NO_ENERGY),
        has_energy=bool(scores["energy_ratio"].notna().any()) if len(scores) else False,
        checks=merged(checks(meta), "victim"),
        tally=Counter(check["result"] for check in checks(meta)),
        knife_edge=int(samples["knife_edge"].sum()) if "knife_edge" in samples else 0,
        skipped=merged(skipped(meta), "attack"),
        provenance=_provenance(samples, meta, noun),
        notes=[str(note) for note in meta.get("notes") or ()],
    )


def write(samples: pd.DataFrame, scores: pd.DataFrame, meta: Meta, path: str | Path) -> Path:
    """Render, and write to ``path`` as UTF-8; returns the path."""
    path = Path(path)
    path.write_text(render(samples, scores, meta), encoding="utf-8", errors="backslashreplace")
    return path


def _lead(found: list[Verdict]) -> Verdict | None:
    """The victim that lost most, for the first sentence."""
    judged = [v for v in found if v.worst and not missing(v.savings) and not v.constant]
    return min(judged, key=lambda verdict: verdict.savings, default=None)


def _facts(samples: pd.DataFrame, scores: pd.DataFrame, meta: Meta, noun: Noun) -> list[str]:
    """The line under the title: what was scored, on what, when."""
    facts = []
    if len(samples):
        counts = samples.groupby("victim")["sample"].nunique()
        numbers = [f"{count:,}" for count in sorted({counts.min(), counts.max()})]
        name = noun.one if counts.max() == 1 else noun.many
        facts.append(f"{' to '.join(numbers)} {name} per victim")
    if len(scores):
        count = len(scores.loc[scores["kind"] == "compute", "attack"].unique())
        facts.append(f"{count} compute attack{'' if count == 1 else 's'}")
    if device := section(meta, "environment").get("device"):
        facts.append(f"on {device}")
    if created := meta.get("created"):
        facts.append(words.moment(created))
    return facts


def _provenance(samples: pd.DataFrame, meta: Meta, noun: Noun) -> list[tuple[str, str]]:
    """How the report was made, as pairs of a name and a value."""
    versions, machine = section(meta, "versions"), section(meta, "environment")
    seeds = meta.get("seeds")
    pairs = [
        ("Command", meta.get("command")),
        ("Data", meta.get("data")),
        ("Seeds", ", ".join(map(str, seeds)) if isinstance(seeds, list | tuple) else seeds),
        ("Created", words.moment(meta["created"]) if meta.get("created") else None),
        *((_fact(key), value) for key, value in machine.items()),
        ("Versions", " · ".join(f"{name} {value}" for name, value in versions.items())),
        ("Rows", f"{len(samples):,} (victim × attack × ε × seed × {noun.one})"),
    ]
    return [(name, _told(value)) for name, value in pairs]


def _fact(key: str) -> str:
    """The name of a fact about the machine: "device_name" -> "Device name"."""
    text = key.replace("_", " ")
    return text.upper() if key in ("cpu", "cuda") else f"{text[0].upper()}{text[1:]}"


def _told(value: object) -> str:
    if value in (None, ""):
        return "not recorded"
    return words.decimal(value, 1) if isinstance(value, float) else str(value)
