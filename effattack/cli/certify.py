"""``effattack certify``: what no attack can pass, whoever looks for it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from effattack.certify.kinds import KINDS
from effattack.cli.sweep_options import entry_arguments
from effattack.cli.terminal import PLAIN
from effattack.errors import expect_least

if TYPE_CHECKING:
    from effattack.certify.certificate import Certificate
    from effattack.domains import Domain
    from effattack.victim import Victim

HELP = "bound from below what a victim keeps, whoever attacks it"
EXAMPLES = """examples:
  effattack certify digits_cnn_early_exit --sigma .1 --threat l2:.1 --threat l2:.25
  effattack certify mypackage.models:build --data images/ --sigma .1 --threat linf:1/255
  effattack certify mypackage.models:build --kind cap --uncapped mypackage.models:without_cap
  effattack certify digits_cnn_early_exit --sigma .1 --threat l2:.1 \\
      --fail-below certified_retained=.6
"""
SCHEMA = 1
"""Of ``--json``; raised when its fields change meaning."""


def arguments(certify: argparse.ArgumentParser) -> None:
    certify.add_argument("victim", metavar="NAME|MODULE:FACTORY|FILE.onnx")
    entry_arguments(certify)
    certify.add_argument(
        "--threat",
        action="append",
        metavar="NAME:SIZE",
        help="what may be changed, repeatable: linf:1/255, l2:.25, swap:1 (the usual one of the "
        "inputs)",
    )
    certify.add_argument(
        "--kind",
        default="auto",
        metavar="KIND",
        help=f"{', '.join(KINDS)}, or auto: the first that applies (auto)",
    )
    certify.add_argument("--images", type=int, default=40, metavar="N", help="inputs (40)")
    certify.add_argument(
        "--data", metavar="PATH|MODULE:FACTORY", help="folder by class, .npz, or a callable"
    )
    certify.add_argument(
        "--sigma", type=float, help="add noise of this deviation to the inputs: a smoothed victim"
    )
    certify.add_argument(
        "--alpha", type=float, help="probability that the bound of any input is too low (.001)"
    )
    certify.add_argument("--samples", type=int, metavar="N", help="draws of each input (1000)")
    certify.add_argument(
        "--time-limit", type=float, metavar="SECONDS", help="of the solver, per input (20)"
    )
    certify.add_argument("--seed", type=int, help="of the draws (0)")
    certify.add_argument(
        "--uncapped",
        metavar="NAME|MODULE:FACTORY",
        help="the victim without its cap, whose savings a cap protects",
    )
    certify.add_argument("--fail-below", action="append", default=[], metavar="SCORE=VALUE")
    certify.add_argument("--fail-above", action="append", default=[], metavar="SCORE=VALUE")
    choice = certify.add_mutually_exclusive_group()
    choice.add_argument("--quiet", action="store_true", help="say only what went wrong")
    choice.add_argument("--json", action="store_true", help="certificates as JSON, nothing else")


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.certify.by_name import certify
    from effattack.certify.kinds import check_kind
    from effattack.cli.output import print_bad_news
    from effattack.inputs.source import load_data, subset
    from effattack.threats import parse_threat, usual_threat
    from effattack.victim import load_victim

    check_kind(options.kind)
    expect_least("--images", options.images, 1)
    limits = _limits(options)
    victim = _victim(options)
    given = options.threat or [str(usual_threat(victim.domain))]
    threats = [parse_threat(text).on(victim.domain) for text in dict.fromkeys(given)]
    inputs, _ = subset(*load_data(options.data, victim), options.images)
    settings = {key: getattr(options, key) for key in ("alpha", "samples", "seed", "time_limit")}
    settings = {key: value for key, value in settings.items() if value is not None}
    if options.uncapped:
        settings["uncapped"] = load_victim(options.uncapped)
    found = []
    for threat in threats:
        found.append(certify(victim, inputs, threat, options.kind, **settings))
        for line in sentences(found[-1], victim.domain):
            console.print(line, **PLAIN)
    bad = [message for one in found for limit in limits if (message := _crossed(one, limit))]
    print_bad_news(bad, options)
    if options.json:
        told = {"schema": SCHEMA, "certificates": [as_json(one) for one in found], "failed": bad}
        print(json.dumps(told, indent=1), file=options.stdout)
    return 1 if bad else 0


def _victim(options: argparse.Namespace) -> Victim:
    from effattack.victim import load_victim
    from effattack.victim.smoothed import Smoothed

    victim = load_victim(options.victim, options.twin or "", options.through or "")
    return victim if options.sigma is None else Smoothed(victim, options.sigma)


def sentences(certificate: Certificate, domain: Domain) -> Iterator[str]:
    """What a certificate says, in plain words; its cost last."""
    from effattack.reporting import words

    one, count = certificate, len(certificate.clean)
    unit = "MACs" if one.currency == "macs" else one.currency
    like = float(one.most.max())
    clean, most = (_written(float(work.mean()), like) for work in (one.clean, one.most))
    yield f"{one.victim} at {one.threat}, certificate by {one.kind}, {count} {domain.nouns}"
    yield f"  clean work       {clean} {unit} per {domain.noun}"
    yield f"  certified work   at most {most} {unit}, whoever attacks"
    if not bool(one.known.any()):
        yield "  no certificate at this budget: the bound reaches the ceiling of every input"
    elif not bool(one.known.all()):
        yield f"  known for        {int(one.known.sum())} of {count} {domain.nouns}"
    retained = one.certified_retained
    told = "not stated: name the victim without the cap (--uncapped)"
    told = told if words.missing(retained) else f"at least {words.at_least(retained)} of savings"
    yield f"  retained         {told} (certified_retained)"
    factor = words.ratio(one.certified_factor)
    yield f"  factor           one request costs at most {factor} a clean one (certified_factor)"
    if one.p99 is not None:
        yield f"  99 % of draws    at most {_written(float(one.p99.mean()), like)} {unit}"
    error = (
        f"{one.error:g}, over all {count} {domain.nouns} together" if one.error else "0: a proof"
    )
    yield f"  error            probability {error}"
    yield f"  own cost         {one.seconds:.1f} s, {one.passes:,.0f} passes per {domain.noun}"
    if one.note:
        yield f"  note             {one.note}"


def _written(work: float, like: float) -> str:
    """A mean of work; of few passes or tokens with a decimal."""
    from effattack.reporting import words

    return words.macs(work, like) if like >= 1000 else words.decimal(work, 1)


def as_json(certificate: Certificate) -> dict[str, Any]:
    """A certificate as plain JSON; what is not known is null."""
    one = certificate
    rows = {key: getattr(one, key) for key in ("clean", "most", "ceiling", "p99")}
    return {
        **{key: getattr(one, key) for key in ("victim", "threat", "kind", "currency", "error")},
        **{key: getattr(one, key) for key in ("seconds", "passes", "note")},
        "certified_retained": _number(one.certified_retained),
        "certified_factor": _number(one.certified_factor),
        "known": one.known.tolist(),
        **{k: None if v is None else [*map(_number, v.tolist())] for k, v in rows.items()},
    }


def _number(value: float) -> float | None:
    return value if value == value else None


def _limits(options: argparse.Namespace) -> list[Any]:
    from effattack.errors import UsageError
    from effattack.results.limits import parse_limit

    limits = [parse_limit(text, fail_below=True) for text in options.fail_below]
    limits += [parse_limit(text, fail_below=False) for text in options.fail_above]
    if others := [limit.score for limit in limits if not limit.on.proven]:
        raise UsageError(
            f"{', '.join(others)} is of attacks, not of certificates: limit certified_retained or "
            "certified_factor here, and the rest in effattack run"
        )
    return limits


def _crossed(certificate: Certificate, limit: Any) -> str:
    """What is said where a certificate does not keep a limit; empty where it does.

    Raises:
        MeasurementError: where it says nothing of that score.
    """
    from effattack.errors import MeasurementError

    value, where = (
        getattr(certificate, limit.score),
        f"{certificate.victim} at {certificate.threat}",
    )
    if value != value:
        raise MeasurementError(
            f"could not measure {limit.score} of {where}: a cap says nothing of savings; name the "
            "victim without it (--uncapped), or limit certified_factor"
        )
    if value >= limit.value if limit.fail_below else value <= limit.value:
        return ""
    side = "below" if limit.fail_below else "above"
    return f"{where}: {limit.score} is {value:.3f}, {side} the limit {limit.value:g}"
