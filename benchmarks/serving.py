"""The simulated server beside a real one, and what attacked requests cost an operator.

    python benchmarks/serving.py --out docs/serving_table.md

Service times are measured batch by batch, transport by lone requests to the idle server; then both
servers get the same policy and the same load, and mean and 95th percentile are compared.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from micro_batching import load, running
from tables import markdown

from effattack.attacks import build
from effattack.data import load_data, subset
from effattack.measure.batching import drawn_from, time_batches
from effattack.measure.clocks import WallClock
from effattack.measure.environment import environment
from effattack.measure.serving import Server, operator_table, simulate, summary
from effattack.registry import load_victim

UTILISATIONS = (0.3, 0.5, 0.7)
SHARES = (0.0, 0.5)
AGREE = 0.15
"""Relative difference of mean and 95th percentile up to which simulation and server agree."""


def main() -> int:
    options = _options()
    torch.set_num_threads(1)
    victim = load_victim(options.victim)
    images, labels = subset(*load_data(None, victim), 64)
    attacked = build(options.attack, victim, 8 / 255, 0)(images, labels)
    server = Server(options.max_batch, options.max_wait)
    clock = WallClock(victim.device)
    measured = time_batches(
        victim, images, attacked, clock, max_batch=server.max_batch, readings=20
    )
    service = drawn_from(measured)
    with running(options.victim, server) as port:
        load(port, images, attacked, 0.0, np.full(20, 0.05))  # warms up
        transport = _transport(port, images, attacked, server, measured)
        rows = [
            _compared(port, images, attacked, server, measured, transport, use, share, options)
            for use in UTILISATIONS
            for share in SHARES
        ]
    rate = 0.5 * _capacity(measured, server, 0.0)
    operator = operator_table(service, server, rate, requests=options.requests)
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
        options.out.write_text(text + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--victim", default="digits_tinysaver_cascade")
    parser.add_argument("--attack", default="Slowdown")
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--max-wait", type=float, default=0.005, metavar="SECONDS")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    return parser.parse_args()


def _capacity(measured: pd.DataFrame, server: Server, share: float) -> float:
    """Requests per second of one machine whose batches are always full."""
    full = measured[measured.images == server.max_batch].groupby("attacked").seconds.mean()
    return server.max_batch / float(full[round(share * server.max_batch)])


def _transport(port, images, attacked, server: Server, measured: pd.DataFrame) -> float:  # type: ignore[no-untyped-def]
    """Seconds of a lone request beside the wait for more, and the batch."""
    served = load(port, images, attacked, 0.0, np.full(40, 0.1))
    lone = measured[(measured.images == 1) & (measured.attacked == 0)].seconds.median()
    return float((served.answered - served.arrived).median() - server.max_wait - lone)


def _compared(  # type: ignore[no-untyped-def]
    port, images, attacked, server, measured, transport, utilisation, share, options
) -> dict[str, object]:
    rate = utilisation * _capacity(measured, server, share)
    gaps = np.random.default_rng(0).exponential(1 / rate, options.requests)
    really = summary(load(port, images, attacked, share, gaps))
    served = simulate(drawn_from(measured), server, rate, attacked=share, requests=options.requests)
    simulated = summary(served.assign(arrived=served.arrived - transport))
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
        "agree": "yes" if max(map(abs, errors)) <= AGREE else "no",
    }


def _rounded(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
