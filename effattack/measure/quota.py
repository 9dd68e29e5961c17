"""A quota on escalated work per account and window: the operator's own, exact certificate.

    requests of tenants ── who pays? ──► quota ──► escalated, or the cheap answer ──► machines

A request that its cheap model is unsure about is handed on only where the account that pays for it
has enough left in the window; else the cheap answer stands. So no account ever causes more than

    work in any window ≤ requests in it × cheap work + quota,

whatever the requests hold: this is a certificate without an attack, a model or a probability. What
it costs is accuracy, and whose depends on who shares an account: one for each tenant, or one for
all (``benchmarks/quota.py``, ``docs/serving.md``).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from effattack.domains import Batch
from effattack.errors import NotApplicable, UsageError
from effattack.victim import Victim
from effattack.victim.undisturbed import undisturbed


class Quota(NamedTuple):
    """How much escalated work an account may cause in any window of that length."""

    macs: float
    """In any half-open interval of ``window`` seconds."""
    window: float
    """Seconds."""


class Tenant(NamedTuple):
    """Who sends requests: one of some inputs after another, drawn at random."""

    name: str
    rate: float
    """Requests per second, Poisson."""
    inputs: pd.DataFrame
    """What :func:`answers` tells of each."""


def answers(victim: Victim, inputs: Batch, labels: Tensor) -> pd.DataFrame:
    """What a service knows, and pays, for each input, with and without escalation.

    Args:
        victim: stages in a row with one decision after the first: a cascade, early exits.
        inputs: (B, ...) of its domain.
        labels: (B,) class indices.

    Returns:
        One row per input: ``wants`` (the first stage hands it on), ``cheap_macs``, ``extra_macs``
        (of handing on, 0 where it does not want to), ``cheap_right``, ``right`` (the victim's own
        answer).

    Raises:
        NotApplicable: for a victim without stages that answer.
    """
    with undisturbed(victim), torch.no_grad():
        trace = victim.trace(inputs)
    stages = trace.stage_logits
    if stages is None or not trace.gates or len(trace.gates) != stages.shape[1] - 1:
        raise NotApplicable(
            f"{victim.name} has no decision behind a first stage that answers: a quota needs a "
            "cheap answer to fall back on, as cascades and early exits have one"
        )
    cheap = victim.max_macs - torch.as_tensor(trace.gates[0].cost).amax().item()
    return pd.DataFrame(
        {
            "wants": trace.gates[0].active[:, 0].numpy(),
            "cheap_macs": np.full(len(labels), cheap),
            "extra_macs": (trace.macs - cheap).numpy(),  # both are whole numbers
            "cheap_right": (stages[:, 0].argmax(1) == labels).numpy(),
            "right": (trace.logits.argmax(1) == labels).numpy(),
        }
    )


def stream(tenants: list[Tenant], seconds: float, seed: int = 0) -> pd.DataFrame:
    """The requests of all tenants in the order of their arrival.

    Args:
        tenants: of different names.
        seconds: that they send for.
        seed: of moments and inputs. Each tenant draws its own: another one beside it moves none.

    Returns:
        One row per request: ``arrived``, ``tenant``, and the columns of :func:`answers`.

    Raises:
        UsageError: for tenants of one name, without inputs, or a rate or time that is not positive.
    """
    if len({tenant.name for tenant in tenants}) != len(tenants) or not tenants:
        raise UsageError(f"tenants {[t.name for t in tenants]}: give one or more, each its name")
    if seconds <= 0 or any(t.rate <= 0 or not len(t.inputs) for t in tenants):
        raise UsageError(
            f"{seconds} s of {[(t.name, t.rate, len(t.inputs)) for t in tenants]}: times and rates "
            "are positive, and each tenant has inputs"
        )
    parts = []
    for place, tenant in enumerate(tenants):
        rng = np.random.default_rng([seed, place])
        moments = np.sort(rng.uniform(0, seconds, rng.poisson(tenant.rate * seconds)))
        rows = tenant.inputs.iloc[rng.integers(len(tenant.inputs), size=len(moments))]
        parts.append(rows.assign(arrived=moments, tenant=tenant.name))
    return pd.concat(parts).sort_values("arrived", kind="stable", ignore_index=True)


def within_quota(
    arrived: np.ndarray, extra: np.ndarray, accounts: np.ndarray, quota: Quota | None
) -> np.ndarray:
    """Which requests are handed on, decided in the order of their arrival.

    A request is handed on if its account then stays within the quota in every window: the sum over
    the last ``window`` seconds, its own share included, is at most ``quota.macs``.

    Args:
        arrived: (N,) seconds, ascending.
        extra: (N,) MACs of handing on, whole numbers; 0 where a request does not want to.
        accounts: (N,) who pays: one for each tenant, or the same for all.
        quota: None: none.

    Returns:
        (N,) bool.

    Raises:
        UsageError: for arrivals out of order, work that is no whole number of MACs, or a quota
            that is none.
    """
    if (np.diff(arrived) < 0).any() or (extra < 0).any() or (extra != np.floor(extra)).any():
        raise UsageError("arrivals ascend, and work is a whole number of MACs, 0 or more")
    if quota is None:
        return extra > 0
    if not (quota.macs >= 0 and quota.window > 0):
        raise UsageError(f"{quota}: give MACs, 0 or more, and a window of more than 0 s")
    spent: dict[object, int] = {}
    recent: dict[object, deque[tuple[float, int]]] = {}
    admitted = np.zeros(len(arrived), dtype=bool)
    for row, (now, work, account) in enumerate(zip(arrived, extra, accounts, strict=True)):
        past = recent.setdefault(account, deque())
        while past and past[0][0] <= now - quota.window:
            spent[account] -= past.popleft()[1]
        if 0 < work <= quota.macs - spent.get(account, 0):
            admitted[row] = True
            past.append((now, int(work)))
            spent[account] = spent.get(account, 0) + int(work)
    return admitted


def answered_within(
    requests: pd.DataFrame, quota: Quota | None, accounts: np.ndarray
) -> pd.DataFrame:
    """The requests of :func:`stream` as they are answered under a quota.

    Returns:
        The same rows with ``account``, ``escalated``, ``refused`` (wanted to be, and was not),
        ``macs`` and ``correct``.
    """
    extra = requests.extra_macs.to_numpy()
    escalated = within_quota(requests.arrived.to_numpy(), extra, accounts, quota)
    refused = requests.wants.to_numpy(dtype=bool) & ~escalated
    return requests.assign(
        account=accounts,
        escalated=escalated,
        refused=refused,
        macs=requests.cheap_macs + np.where(escalated, extra, 0),
        correct=np.where(refused, requests.cheap_right, requests.right).astype(bool),
    )


def certified_work(served: pd.DataFrame, quota: Quota) -> np.ndarray:
    """(N,) MACs: the most that each request's account causes in the window that ends with it.

    Requests in the window × cheap work + quota; exact, whatever the requests hold.
    """
    return _in_window(served, served.cheap_macs.to_numpy(), quota.window) + quota.macs


def work_in_window(served: pd.DataFrame, window: float) -> np.ndarray:
    """(N,) MACs that each request's account did cause in the window that ends with it."""
    return _in_window(served, served.macs.to_numpy(), window)


def _in_window(served: pd.DataFrame, work: np.ndarray, window: float) -> np.ndarray:
    """(N,) sums of work over (arrived - window, arrived], account by account."""
    arrived, accounts = served.arrived.to_numpy(), served.account.to_numpy()
    found = np.zeros(len(served))
    for account in np.unique(accounts):
        rows = np.flatnonzero(accounts == account)
        total = np.concatenate([[0.0], np.cumsum(work[rows])])
        first = np.searchsorted(arrived[rows], arrived[rows] - window, side="right")
        last = np.searchsorted(arrived[rows], arrived[rows], side="right")
        found[rows] = total[last] - total[first]
    return found
