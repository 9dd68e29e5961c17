"""What the pytest plugin says of each victim: the worst found on it, and how its tests stand.

Facts travel as ``user_properties`` of the tests: through xdist to the terminal of the controller,
and into JUnit files. No model and no torch are needed to print them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isnan
from typing import TYPE_CHECKING, Any

from effattack.results.currency import unit, work_of
from effattack.results.limits import ATTACKS
from effattack.results.table import headlines
from effattack.results.unmeasured import unknown_max, unknown_work

if TYPE_CHECKING:
    from effattack.results.evaluation import Evaluation

PREFIX = "effattack."
TROUBLE = "trouble"
"""The fact that something could not be used: said once, however many tests need it."""
LEFT = "left"
"""The fact that a suite left a victim to another suite; red where no other one took it."""
SEVERITY = ("scored, not judged", "passed", "could not measure", "failed")
"""How verdicts begin; the last of those that apply counts."""
HEADER = ("victim", "savings retained", "worst found", "{work} clean → attacked")
"""Behind them stand the scores of every headline, the latency and the verdict."""

PHASES = ("", "collect", "setup", "call", "teardown")
"""Of a test, in order: the last report knows most."""

WORK = ("clean_work", "work", "max_work")
"""Facts of the work that judges: clean, attacked, at the most."""
NOTES = ("twin", "note", "data", "skipped", "caveats")
"""Facts that are told under the table, each once."""

Properties = list[tuple[str, Any]]
Facts = dict[str, Any]
"""Of one victim: plain numbers and strings, which any process can send."""


def worst(evaluation: Evaluation) -> dict[str, Facts]:
    """Victim -> its worst union, with the slowest compute attack; without any, the clean images."""
    from effattack.reporting import words
    from effattack.reporting.nouns import noun_of, with_domains
    from effattack.reporting.twins import beside_twins
    from effattack.results.caveats import caveats

    found, table = {}, with_domains(evaluation.scores(), evaluation.meta)
    twins = {beside.victim: beside.told for beside in beside_twins(table, evaluation.meta)}
    for victim, rows in table.groupby("victim", sort=False):
        unions, attacks = rows[rows.kind == "union"], rows[rows.inside & rows.kind.isin(ATTACKS)]
        row = unions.sort_values("equals_n_requests").iloc[-1] if len(unions) else rows.iloc[0]
        names, slowest = [row.found_by.partition(" found ")[0]], row
        if len(attacks) and not row.constant:
            furthest = attacks.sort_values("equals_n_requests", kind="stable").iloc[-1]
            names.append(furthest.attack)
            compute = attacks[attacks.kind == "compute"]
            timed = compute.dropna(subset=["latency_low"])
            timed = timed.sort_values("latency_ratio", na_position="first")
            slowest = timed.iloc[-1] if len(timed) else row
        found[str(victim)] = {
            "savings_retained": float(row.savings_retained),
            "attack": next(filter(None, names), ""),
            "budget": words.budget(row),
            "unit": unit(row),
            "macs_ratio": float(row.macs_ratio),
            **dict(zip(WORK, map(float, work_of(row)), strict=True)),
            "unknown_max": unknown_max(row) or unknown_work(row),
            "twin": f"{victim} {twins[str(victim)]}" if str(victim) in twins else "",
            **{score.name: _sent(row[score.name]) for score in headlines()},
            "latency_ratio": float(slowest.latency_ratio),
            "latency_low": float(slowest.latency_low),
            "latency_high": float(slowest.latency_high),
            "clock": str(slowest.clock or ""),
            "inputs": noun_of(evaluation.meta, str(victim)).many,
            "caveats": "\n".join(f"{victim}: {told}" for told in caveats(rows, evaluation.meta)),
        }
    return found


def _sent(value: Any) -> float | str:
    """A score as any process can send it."""
    return value if isinstance(value, str) else float(value)


def damage(facts: Facts) -> float:
    """Attacked over clean work, 0 where it is unknown; less than any where nothing was scored."""
    done = facts.get("equals_n_requests", -1.0)
    return 0.0 if isnan(done) else done


def by_victim(properties: Properties) -> dict[str, Facts]:
    """The facts among the properties of a test."""
    found: dict[str, Facts] = {}
    for name, value in properties:
        if name.startswith(PREFIX):
            victim, _, key = name.removeprefix(PREFIX).rpartition(".")
            found.setdefault(victim, {})[key] = value
    return found


def lines(reports: Iterable[Any]) -> list[tuple[str, bool]]:
    """One line per scored victim, per trouble and per note, and whether it is bad news."""
    scores: dict[str, Facts] = {}
    verdicts: dict[str, dict[str, None]] = {}
    notes: dict[str, None] = {}
    troubles: dict[str, None] = {}
    for test, properties, failed in _tests(reports):
        for victim, facts in by_victim(properties).items():
            troubles[facts.get(TROUBLE, "")] = None
            verdict = facts.get("verdict", SEVERITY[0])
            for key in NOTES:
                notes |= dict.fromkeys(str(facts.get(key, "")).split("\n"))
            if failed and _severity(verdict) < SEVERITY.index("could not measure"):
                verdict = f"failed: {test}"
            verdicts.setdefault(victim, {})[verdict] = None
            if damage(facts) > damage(scores.get(victim, {})):
                scores[victim] = facts
    rows = [_row(victim, facts, list(verdicts[victim])) for victim, facts in scores.items()]
    units = {facts["unit"] for facts in scores.values()}
    work = "MACs" if units <= {"MACs"} else "work (MACs, or as named)"
    titles = [title.format(work=work) for title in HEADER]
    header = (*titles, *(score.flat.lower() for score in headlines()), "latency", "verdict")
    table = [header, *rows] if rows else []
    widths = [max(map(len, column)) for column in zip(*table, strict=True)][:-1]
    told = [
        ("  ".join([*map(str.ljust, row, widths), row[-1]]), row[-1].startswith(SEVERITY[2:]))
        for row in table
    ]
    told += [(trouble, True) for trouble in troubles if trouble]
    return told + [(note, False) for note in notes if rows and note]


def _tests(reports: Iterable[Any]) -> Iterator[tuple[str, Properties, bool]]:
    """Each test by its short name, its last properties, and whether any phase of it failed."""
    properties: dict[str, Properties] = {}
    failed = set()
    for report in sorted(reports, key=_phase):
        if test := getattr(report, "nodeid", "").rpartition("/")[2]:
            properties[test] = getattr(report, "user_properties", None) or properties.get(test, [])
            if getattr(report, "failed", False):
                failed.add(test)
    for test, own in properties.items():
        yield test, own, test in failed


def _phase(report: Any) -> int:
    """Of a test whose worker crashed, xdist reports the phase ``???``, and no properties."""
    when = getattr(report, "when", "")
    return PHASES.index(when) if when in PHASES else len(PHASES)


def _severity(verdict: str) -> int:
    return next(rank for rank, start in enumerate(SEVERITY) if verdict.startswith(start))


def _row(victim: str, facts: Facts, verdicts: list[str]) -> tuple[str, ...]:
    from effattack.reporting import words

    savings = facts["savings_retained"]
    nothing = "unknown" if facts["unknown_max"] else "nothing was saved"
    timed = words.latency(facts, facts["inputs"]) if facts["attack"] else words.MISSING
    clock = "" if isnan(facts["latency_ratio"]) else f" {facts['clock']}"
    most = max(map(_severity, verdicts))
    said = [verdict for verdict in verdicts if _severity(verdict) == most]
    return (
        victim,
        nothing if isnan(savings) else words.retained(savings),
        f"{facts['attack']} at {facts['budget']}" if facts["attack"] else "none applied",
        "unknown" if isnan(facts["work"]) else _moved(facts),
        *(words.score(score, facts) for score in headlines()),
        "not measured" if timed == words.MISSING else f"{timed}{clock}",
        said[0] + (f" (and {len(said) - 1} more)" if len(said) > 1 else ""),
    )


def _moved(facts: Facts) -> str:
    """Clean and attacked work; of another currency than MACs also the most, and MACs beside it."""
    clean, attacked, most = (facts[key] for key in WORK)
    if facts["unit"] == "MACs":
        return f"{clean:,.0f} → {attacked:,.0f}"
    beside = f"MACs ×{facts['macs_ratio']:.2f}"
    return f"{clean:,.1f} → {attacked:,.1f} of {most:,.0f} {facts['unit']} ({beside})"
