"""Decisions within rounding of their threshold, which the two paths may take differently."""

from __future__ import annotations

import torch
from torch import Tensor

from effattack.victim.trace import Trace


def margin_slack(dtype: torch.dtype | None) -> float:
    """Decisions closer to their threshold than this may differ between paths in a precision."""
    return 1e-5 if dtype is None else {torch.float16: 0.01, torch.bfloat16: 0.05}.get(dtype, 1e-5)


def on_knife_edge(trace: Trace) -> Tensor:
    """(B,) bool: some decision lies so near its threshold that rounding could flip it."""
    slack = margin_slack(trace.dtype)
    near = torch.zeros(len(trace.logits), dtype=torch.bool, device=trace.logits.device)
    for gate in trace.gates:
        if not gate.proxy:
            near |= (gate.reached & (gate.margin.detach().abs() <= slack)).any(1)
    return near if trace.slack is None else near | (trace.slack.detach() <= slack)
