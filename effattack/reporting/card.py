"""The block "Robustness of efficiency" of a model card: threat, budget, device, n, intervals."""

from __future__ import annotations

import pandas as pd

from effattack.measure.statistics import NOTHING
from effattack.reporting import words
from effattack.reporting.markdown import code, plain
from effattack.reporting.meta import Meta, section
from effattack.reporting.tables import over_dense
from effattack.reporting.verdict import Verdict, unit_of, verdicts
from effattack.reporting.words import missing
from effattack.resampling import interval, resamples, savings_retained


def card(samples: pd.DataFrame, scores: pd.DataFrame, meta: Meta) -> str:
    """One table per victim, for its model card."""
    blocks = [_block(verdict, samples, meta) for verdict in verdicts(scores, meta)]
    return "## Robustness of efficiency\n\n" + "\n\n".join(blocks) + "\n"


def _block(verdict: Verdict, samples: pd.DataFrame, meta: Meta) -> str:
    row, clean = verdict.shown, verdict.clean
    if row is None or clean is None:
        return f"{code(verdict.victim)} was not scored."
    own = samples[(samples.victim == verdict.victim) & (samples.attack == row["attack"])]
    own = own[own.eps == row["eps"]]
    like = unit_of(row)
    machine = section(meta, "environment")
    versions = section(meta, "versions")
    facts = {
        "Savings retained": _savings(verdict, own),
        "Worst compute attack": code(str(row["attack"])) if verdict.worst else "none applies",
        "Threat": f"every pixel within ε = {words.eps(row['eps'])} of the image, in [0, 1]",
        "MACs per image": f"{words.macs(row['clean_macs'], like)} clean, "
        f"{words.macs(row['macs'], like)} attacked ({words.ratio(row['macs_ratio'])}; "
        f"{over_dense(row)} of the dense model), max {words.macs(row['max_macs'], like)}",
        "Accuracy": f"{words.percent(clean['accuracy'])} clean, "
        f"{words.percent(row['accuracy'])} attacked",
        "Latency": "not measured"
        if missing(row["latency_ratio"])
        else f"{words.ratio(row['latency_ratio'])} "
        f"({words.interval(row['latency_low'], row['latency_high'])}), "
        f"{plain(str(machine.get('device_name', 'unknown device')))}",
        "Images": f"{own['sample'].nunique()}, seeds {', '.join(map(str, meta.get('seeds', [])))}",
        "Measured with": plain(" ".join(f"{k} {v}" for k, v in versions.items()))
        + (f", {code(str(meta['command']))}" if meta.get("command") else ""),
    }
    lines = [f"| {code(verdict.victim)} | under attack |", "| --- | --- |"]
    return "\n".join(lines + [f"| {fact} | {told} |" for fact, told in facts.items()])


def _savings(verdict: Verdict, rows: pd.DataFrame) -> str:
    if missing(verdict.savings):
        return plain(verdict.note) or words.MISSING
    images = rows.groupby("sample")[["macs", "clean_macs", "max_macs"]].mean()
    found = NOTHING
    if verdict.worst and not verdict.constant:
        statistic = savings_retained(images.macs, images.clean_macs, images.max_macs.iloc[0])
        found = interval(statistic, resamples(len(images)))
    told = f"**{words.headline_percent(verdict.savings)}**"
    if missing(found.low):
        return told + (" (constant)" if verdict.constant else "")
    return f"{told} (95 % interval over images: {found.low:.0%} to {found.high:.0%})"
