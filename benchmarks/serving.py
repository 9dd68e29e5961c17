"""The simulated server beside a real one, and what attacked requests cost an operator.

    python benchmarks/serving.py --out docs/serving_table.md

How long batches of each make-up keep the server, and how long a lone request is under way beside
that, is measured without load; then both get the same policy and the same requests at the
same moments, and mean and 95th percentile are compared. Three minutes; it takes two cores that
nothing else uses. The victim must take longer for an image than the server's own Python, some
0.1 ms per request: of a faster one (the cascade on clean digits) this would measure the server.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from micro_batching import load, running
from tables import markdown

from effattack.attacks import build
from effattack.errors import EffattackError, MeasurementError
from effattack.inputs.source import load_data, subset
from effattack.measure.batching import drawn_from
from effattack.measure.environment import environment
from effattack.measure.serving import Server, operator_table, simulate, summary
from effattack.victim import load_victim

UTILISATIONS = (0.3, 0.5, 0.7)
SHARES = (0.0, 0.5)
Send = Callable[[np.ndarray, np.ndarray], pd.DataFrame]
"""(which requests are attacked, gaps before them) -> what the real server did."""
AGREE = 0.15
"""Relative difference of mean and 95th percentile up to which simulation and server agree."""


def main() -> int:
    """Measure, compare and print; return the exit code."""
    try:
        _report(_options())
    except EffattackError as error:
        print(f"serving.py: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _report(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    victim = load_victim(options.victim)
    images, labels = subset(*load_data(None, victim), 64)
    attacked = build(options.attack, victim, 8 / 255, 0)(images, labels)
    server = Server(options.max_batch, options.max_wait)
    with running(options.victim, server) as port:
        send = partial(load, port, images, attacked)
        measured = _measured(send, server, options.readings)
        transport = _transport(send, server, measured)
        rows = [
            _compared(send, server, measured, transport, use, share, options.requests)
            for use in UTILISATIONS
            for share in SHARES
        ]
    rate = 0.5 * _capacity(measured, server, 0.0)
    operator = operator_table(drawn_from(measured), server, rate, requests=options.requests)
    where = environment(victim.device)
    text = "\n".join(
        [
            f"`python {shlex.join(sys.argv)}`",
            "",
            f"{victim.name} under {options.attack} on {where['device_name']}, {where['cores']} "
            f"cores, torch {where['torch']}, load average {where['load_average']:.1f}; batches of "
            f"up to {server.max_batch}, {server.max_wait * 1e3:g} ms wait, transport "
            f"{transport * 1e3:.2f} ms, {options.requests} requests per row.",
            "",
            markdown(pd.DataFrame(rows).map(_rounded)),
            "",
            f"Simulated at {rate:.0f} requests per second, times in seconds, at 1 per machine and "
            "hour:",
            "",
            markdown(operator.map(_rounded)),
        ]
    )
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--victim", default="digits_vit_ats")
    parser.add_argument("--attack", default="Slowdown")
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--max-wait", type=float, default=0.005, metavar="SECONDS")
    parser.add_argument("--requests", type=int, default=2000, help="per row (2000)")
    parser.add_argument("--readings", type=int, default=10, help="per make-up of a batch (10)")
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    return parser.parse_args()


def _measured(send: Send, server: Server, readings: int) -> pd.DataFrame:
    """How long batches of every make-up keep the server, which gets them in bursts.

    A burst comes as soon as the longest batch before it must be answered: after longer pauses
    caches are cold, and the same batch takes up to 1.4 times as long.

    Raises:
        MeasurementError: if the machine is so busy that some never came together.
    """
    full = np.arange(20 * server.max_batch) % server.max_batch
    warm = send(np.ones(len(full), dtype=bool), (full == 0) * 0.1)
    pause = float(warm.before.quantile(0.9)) + server.max_wait
    make_ups = [(n, m) for n in range(1, server.max_batch + 1) for m in range(n + 1)]
    bursts = make_ups * readings + [(1, 0)]  # the last one tells of the one before
    malicious = np.concatenate([np.arange(n) < m for n, m in bursts])
    gaps = np.concatenate([np.arange(n) == 0 for n, _ in bursts]) * pause
    served = send(malicious, gaps).sort_values("batch").groupby("batch")
    batches = pd.DataFrame({"images": served.size(), "attacked": served.attacked.sum()})
    batches["seconds"] = served.before.first().shift(-1)
    batches = batches.dropna()
    if lacking := set(make_ups) - set(zip(batches.images, batches.attacked, strict=True)):
        raise MeasurementError(
            f"requests sent together never made batches of (images, attacked) {sorted(lacking)}: "
            "the machine is too busy; try again on a calm one, or raise --max-wait"
        )
    return batches


def _capacity(measured: pd.DataFrame, server: Server, share: float) -> float:
    """Requests per second of one machine whose batches are always full."""
    full = measured[measured.images == server.max_batch].groupby("attacked").seconds.mean()
    return server.max_batch / float(full[round(share * server.max_batch)])


def _transport(send: Send, server: Server, measured: pd.DataFrame) -> float:
    """Seconds of a lone request beside the wait for more, and the batch."""
    served = send(np.zeros(40, dtype=bool), np.full(40, 0.1))
    lone = measured[(measured.images == 1) & (measured.attacked == 0)].seconds.median()
    return float((served.answered - served.arrived).median() - server.max_wait - lone)


def _compared(
    send: Send,
    server: Server,
    measured: pd.DataFrame,
    transport: float,
    utilisation: float,
    share: float,
    requests: int,
) -> dict[str, object]:
    """Both servers under the requests of :func:`simulate` with seed 0.

    "batch off by" compares how long a batch kept the server in bursts and under load: far from 0,
    neighbours took their share of the cores meanwhile, and the rest of the row means little.
    """
    rate = utilisation * _capacity(measured, server, share)
    served = simulate(drawn_from(measured), server, rate, attacked=share, requests=requests)
    gaps = np.diff(served.arrived, prepend=0.0)
    answers = send(served.attacked.to_numpy(), gaps)
    really = summary(answers)
    simulated = summary(served.assign(arrived=served.arrived - transport))
    alone = (served.answered - served.started).groupby(served.batch).first().mean()
    loaded = answers.groupby("batch").before.first().iloc[1:].mean()
    errors = [simulated.mean / really.mean - 1, simulated.p95 / really.p95 - 1]
    return {
        "of capacity": utilisation,
        "attacked": share,
        "requests/s": rate,
        "mean, real (ms)": really.mean * 1e3,
        "mean, simulated (ms)": simulated.mean * 1e3,
        "mean off by": f"{errors[0]:+.1%}",
        "p95, real (ms)": really.p95 * 1e3,
        "p95, simulated (ms)": simulated.p95 * 1e3,
        "p95 off by": f"{errors[1]:+.1%}",
        "batch off by": f"{alone / loaded - 1:+.1%}",
        "agree": "yes" if max(map(abs, errors)) <= AGREE else "no",
    }


def _rounded(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
