"""Decisions by score margins as rows of an encoding.

Every row holds up to one common variable t: how far beyond its threshold the worst gate may lie.
Minimised below 0, it keeps witnesses away from ties.
"""

from __future__ import annotations

import numpy as np

from effattack.certify.exact.encoding import Encoding, Form

TOLERANCE = 1e-4
"""In units of scores: gates that lie so near to their threshold count as on either side of it. It
covers the rounding of the deployed path in float32, and what HiGHS takes for feasible."""
INSIDE = 0.1
"""How far beyond its threshold a witness is asked for; nearer, where there is none."""


class Gated:
    """An encoding whose gates are decided: what is asked of them, and whether intervals forbid it.

    Args:
        encoding: of the inputs; the network is added as it is read.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.slack = encoding.new(np.array([-INSIDE]), np.array([TOLERANCE]))
        self.impossible = False

    def unsure(self, scores: Form, least_lead: float) -> None:
        """The top score leads the second by less: two scores lie that near to the top one.

        With m >= z_k for all k and whole b_k: z_k >= m - lead - t - M (1 - b_k), Σ b_k >= 2. An m
        above all scores asks for more, so that m need not be the top one.
        """
        encoding, classes = self.encoding, len(scores.bias)
        lower, upper = self._differences(scores)
        near = (lower <= least_lead + TOLERANCE).all(0)  # nobody is surely further ahead of it
        if near.sum() < 2:
            self.impossible = True
            return
        low, high = encoding.bounds(scores)
        top = encoding.new(np.array([low.max()]), np.array([high.max()]))
        chosen = encoding.new(np.zeros(classes), near.astype(float), whole=True)
        every = np.ones((classes, 1))
        encoding.at_least(
            encoding.total(top.linear(every, 0.0), scores.linear(-np.eye(classes), 0))
        )
        room = np.maximum(0.0, upper.max(0) - least_lead + INSIDE)
        encoding.at_least(
            encoding.total(
                scores,
                top.linear(-every, 0.0),
                self.slack.linear(every, 0.0),
                chosen.linear(-np.diag(room), 0.0),
            ),
            -least_lead - room,
        )
        encoding.at_least(chosen.linear(np.ones((1, classes)), 0.0), 2.0)

    def sure(self, scores: Form, least_lead: float) -> None:
        """Some score leads all others by enough: z_k - z_j >= lead - t - M (1 - b_k), Σ b_k = 1."""
        encoding, classes = self.encoding, len(scores.bias)
        lower, upper = self._differences(scores)
        behind = upper < least_lead - TOLERANCE
        np.fill_diagonal(behind, False)
        able = ~behind.any(1)
        if not able.any():
            self.impossible = True
            return
        chosen = encoding.new(np.zeros(classes), able.astype(float), whole=True)
        for k in np.flatnonzero(able):
            others = np.delete(np.arange(classes), k)
            room = np.maximum(0.0, least_lead + INSIDE - lower[k, others])
            ahead = scores.linear(np.eye(classes)[k] - np.eye(classes)[others], 0.0)
            pick = np.zeros((classes - 1, classes))
            pick[:, k] = -room
            slack = self.slack.linear(np.ones((classes - 1, 1)), 0.0)
            encoding.at_least(
                encoding.total(ahead, slack, chosen.linear(pick, 0.0)), least_lead - room
            )
        encoding.at_least(chosen.linear(np.ones((1, classes)), 0.0), 1.0)

    def _differences(self, scores: Form) -> tuple[np.ndarray, np.ndarray]:
        """(classes, classes) twice: bounds of z_row - z_column; 0 on the diagonal."""
        classes = len(scores.bias)
        eye = np.eye(classes)
        apart = (eye[:, None] - eye[None]).reshape(-1, classes)
        lower, upper = self.encoding.bounds(scores.linear(apart, 0.0))
        return lower.reshape(classes, classes), upper.reshape(classes, classes)
