"""What a quota on escalated work does under attack: for each tenant its own, or one for all.

    python benchmarks/quota.py

Four tenants send digits to ``digits_tinysaver_cascade`` (test images); one of them sends attacked
ones, and more of them. (In the rows without an attack he sends as many clean ones.) What each image
asks for, and what cheap and expensive model say of it, is measured; how long batches take, too;
moments and queue are simulated. The quota is the escalated work of a window that 99 % of the
windows of one clean tenant on held-out images stay within, chosen before any test image is looked
at; the shared one is four times that. Three minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tables import markdown

from effattack.attacks import build
from effattack.budgets import parse_number
from effattack.measure.batching import drawn_from, time_batches
from effattack.measure.clocks import clock_named
from effattack.measure.quota import (
    Quota,
    Tenant,
    answered_within,
    answers,
    certified_work,
    stream,
    work_in_window,
)
from effattack.measure.serving import Server, Service, serve, summary
from effattack.models_zoo import load
from effattack.models_zoo.digits import digits

TENANTS = ("attacker", "b", "c", "d")
SERVER = Server(max_batch=4, max_wait=0.002)


class Setting(NamedTuple):
    """How a service is protected."""

    name: str
    quota: Quota | None
    shared: bool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--attack", default="AutoSlow")
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--rate", type=float, default=20, help="requests per second and tenant")
    parser.add_argument("--attacker", type=float, default=300, help="requests per second of his")
    parser.add_argument("--window", type=float, default=1, help="of the quota, in seconds")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    victim = load("digits_tinysaver_cascade")
    images, labels = digits("test")
    attacked = build(options.attack, victim, parse_number(options.eps, "eps"))(images, labels)
    clean, bad = answers(victim, images, labels), answers(victim, attacked, labels)
    quota = _chosen(options.rate, options.seconds, options.window)
    light = images[torch.tensor(~clean.wants.to_numpy())][:32]
    heavy = attacked[torch.tensor(bad.wants.to_numpy())][:32]
    clock = clock_named("wall", victim.device)
    measured = time_batches(victim, light, heavy, clock, max_batch=SERVER.max_batch)
    settings = (
        Setting("none", None, False),
        Setting("each its own", quota, False),
        Setting("one for all", quota._replace(macs=quota.macs * len(TENANTS)), True),
    )
    rows = [
        _row(setting, first, clean, drawn_from(measured), quota, options)
        for first in (clean, bad)
        for setting in settings
    ]
    table = pd.DataFrame(rows)
    table.insert(0, "attacked", ["nobody"] * 3 + [f"tenant {TENANTS[0]}"] * 3)
    step = bad.extra_macs.max()
    print(
        f"Escalates: {clean.wants.mean():.1%} of clean, {bad.wants.mean():.1%} of attacked test "
        f"images; quota {quota.macs / step:.0f} escalations of {step / 1e6:.2f} M MACs per tenant "
        f"and {quota.window:g} s; {options.rate:g} requests per second and tenant, "
        f"{options.attacker:g} of {TENANTS[0]}; {options.seconds:g} s, {options.seeds} "
        f"seeds.\n\n{markdown(table)}"
    )


def _chosen(rate: float, seconds: float, window: float) -> Quota:
    """By a clean tenant's windows on held-out images, to the next whole escalation."""
    victim = load("digits_tinysaver_cascade")
    inputs = answers(victim, *digits("heldout"))
    requests = stream([Tenant("held-out", rate, inputs)], max(seconds, 600), seed=100)
    served = answered_within(requests, None, np.zeros(len(requests)))
    work = work_in_window(served.assign(macs=served.macs - served.cheap_macs), window)
    step = inputs.extra_macs.max()
    return Quota(float(step * np.ceil(np.quantile(work, 0.99) / step)), window)


def _row(
    setting: Setting,
    first: pd.DataFrame,
    clean: pd.DataFrame,
    service: Service,
    quota: Quota,
    options: argparse.Namespace,
) -> dict[str, str]:
    inputs = [first, *[clean] * (len(TENANTS) - 1)]
    rates = [options.attacker, *[options.rate] * (len(TENANTS) - 1)]
    tenants = [Tenant(*each) for each in zip(TENANTS, rates, inputs, strict=True)]
    seen = [_seen(setting, tenants, service, options, seed) for seed in range(options.seeds)]
    served = pd.concat(seen)
    theirs, others = served[served.tenant == TENANTS[0]], served[served.tenant != TENANTS[0]]
    wanted = others[others.wants]
    most, bound = (max(part[key].max() for part in seen) for key in ("work", "bound"))
    return {
        "quota": setting.name,
        "most work of an account in a window": f"{most / 1e6:.1f} M",
        "certified": f"{bound / 1e6:.1f} M" if setting.quota else "none",
        "first tenant: accuracy": f"{theirs.correct.mean():.1%}",
        "the others: accuracy": f"{others.correct.mean():.2%}",
        "their escalations refused": f"{wanted.refused.mean():.1%}",
        "their accuracy on these": f"{wanted.correct.mean():.1%}",
        "p99": f"{np.mean([part.p99.iloc[0] for part in seen]) * 1e3:.1f} ms",
        "utilisation": f"{np.mean([part.use.iloc[0] for part in seen]):.1%}",
    }


def _seen(
    setting: Setting,
    tenants: Sequence[Tenant],
    service: Service,
    options: argparse.Namespace,
    seed: int,
) -> pd.DataFrame:
    requests = stream([*tenants], options.seconds, seed)
    accounts = np.zeros(len(requests)) if setting.shared else requests.tenant.to_numpy()
    served = answered_within(requests, setting.quota, accounts)
    queue = serve(service, SERVER, served.arrived.to_numpy(), served.escalated.to_numpy())
    others = queue[(served.tenant != TENANTS[0]).to_numpy()]
    bound = certified_work(served, setting.quota) if setting.quota else np.full(len(served), np.nan)
    return served.assign(
        work=work_in_window(served, options.window),
        bound=bound,
        p99=(others.answered - others.arrived).quantile(0.99),
        use=summary(queue).utilisation,
    )


if __name__ == "__main__":
    main()
