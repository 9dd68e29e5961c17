"""The block "Robustness of efficiency" of a model card: threat, budget, device, n, intervals."""

from __future__ import annotations

import pandas as pd

from effattack.inputs.generated import GENERATED
from effattack.reporting import words, work
from effattack.reporting.markdown import code, plain
from effattack.reporting.meta import Meta, section
from effattack.reporting.nouns import Noun, domain_of, with_domains
from effattack.reporting.stored import Description
from effattack.reporting.tables import flat, over_dense
from effattack.reporting.twins import Beside, beside_twins
from effattack.reporting.verdict import Row, Verdict, unit_of, verdicts
from effattack.reporting.words import missing
from effattack.results.table import headlines

ELEMENTS = {"pixels": ("pixel", "[0, 1]"), "series": ("sample", "[{low:g}, {high:g}]")}
"""What an input of a kind is made of, and in which range."""


def card(samples: pd.DataFrame, scores: pd.DataFrame, meta: Meta) -> str:
    """One table per victim, for its model card."""
    found = verdicts(with_domains(scores, meta), meta)
    twins = {beside.victim: beside for beside in beside_twins(scores, meta)}
    blocks = [_block(verdict, samples, meta, twins.get(verdict.victim)) for verdict in found]
    return "## Robustness of efficiency\n\n" + "\n\n".join(blocks) + "\n"


def _block(verdict: Verdict, samples: pd.DataFrame, meta: Meta, beside: Beside | None) -> str:
    row, clean = verdict.shown, verdict.clean
    if row is None or clean is None:
        return f"{code(verdict.victim)} was not scored."
    own, timed = samples[samples.victim == verdict.victim], verdict.timed or row
    like = unit_of(row)
    machine = section(meta, "environment")
    versions = section(meta, "versions")
    facts = {
        **({"Beside its twin": plain(beside.told)} if beside else {}),
        "Savings retained": _savings(verdict),
        "Found by": code(verdict.by) if verdict.worst else verdict.by,
        "Threat": _threat(row, domain_of(meta, verdict.victim)),
        **_work(row, verdict.noun),
        f"MACs per {verdict.noun.one}": f"{words.macs(row['clean_macs'], like)} clean, "
        f"{words.macs(row['macs'], like)} attacked ({words.ratio(row['macs_ratio'])}; "
        f"{over_dense(row)} of the dense model), max {words.macs(row['max_macs'], like)}",
        "Accuracy": f"{words.percent(clean['accuracy'])} clean, "
        f"{words.percent(row['accuracy'])} attacked",
        **_capped(row),
        **{score.flat: plain(flat(score, row, verdict.noun)) for score in headlines()},
        "Latency": _latency(timed, verdict.noun, str(machine.get("device_name", "unknown device"))),
        verdict.noun.many.capitalize(): f"{own['sample'].nunique()}, "
        f"seeds {', '.join(map(str, meta.get('seeds', [])))}",
        **_generated(meta),
        "Measured with": plain(" ".join(f"{k} {v}" for k, v in versions.items()))
        + (f", {code(str(meta['command']))}" if meta.get("command") else ""),
    }
    lines = [f"| {code(verdict.victim)} | under attack |", "| --- | --- |"]
    return "\n".join(lines + [f"| {fact} | {told} |" for fact, told in facts.items()])


def _work(row: Row, noun: Noun) -> dict[str, str]:
    """In the count that judges; nothing where that is MACs, which stand there in any case."""
    if work.by_macs(row):
        return {}
    told = work.told(row)
    moved = f"{told.clean} clean, {told.attacked} attacked ({told.ratio}), max {told.most}"
    return {f"{work.capital(told.unit)} per {noun.one}": moved}


def _generated(meta: Meta) -> dict[str, str]:
    """Which inputs are generated, if any are."""
    marks = [str(note) for note in meta.get("notes") or () if f": {GENERATED}: " in str(note)]
    return {"Generated": plain("; ".join(marks))} if marks else {}


def _capped(row: Row) -> dict[str, str]:
    """Of a generator, how many texts the cap ended."""
    if missing(row.get("cap_hit_rate")):
        return {}
    clean, attacked = row["clean_cap_hit_rate"], row["cap_hit_rate"]
    return {"Ended by the cap": f"{words.percent(clean)} clean, {words.percent(attacked)} attacked"}


def _threat(row: Row, domain: Description) -> str:
    """What the attacker may change."""
    if row["threat"] == "none":
        return "none"
    one, where = ELEMENTS.get(str(domain["kind"]), ("", ""))
    where = where.format_map(domain)
    if one and row["threat"] == "linf":
        return f"every {one} within {words.at(row)} of the {domain['noun']}, in {where}"
    return words.at(row) + (f", {one}s in {where}" if one else "")


def _latency(row: Row, noun: Noun, device: str) -> str:
    """With what it was measured on."""
    told = words.latency(row, noun.many)
    if missing(row["latency_ratio"]):
        return "not measured" if told == words.MISSING else told
    return f"{told}, {plain(device)}"


def _savings(verdict: Verdict) -> str:
    if missing(verdict.savings):
        return plain(verdict.note) or words.MISSING
    told = f"**{words.headline_percent(verdict.savings)}**"
    if verdict.constant or verdict.worst is None:
        return told + " (constant)" * verdict.constant
    row = verdict.worst
    span = words.span(row["savings_retained_low"], row["savings_retained_high"])
    return told + f" (95 % interval over {verdict.noun.many}: {span})" * bool(span)
