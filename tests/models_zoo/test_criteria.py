"""Criteria of early exits and cascades: their definitions, their margins, and both paths."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.cascade.cascade import Cascade, TinySaver
from effattack.models_zoo.criteria import (
    Confidence,
    Criterion,
    Entropy,
    Margin,
    Patience,
    ScoreMargin,
)
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.exits import first_exit
from effattack.models_zoo.networks import convolution, pooled_head
from effattack.victim.checks import INVARIANTS, Check
from effattack.victim.margins import disagreement, log_entropy

THRESHOLDED = {
    "confidence": Confidence,
    "entropy": Entropy,
    "margin": Margin,
    "score margin": ScoreMargin,
}
EVERY: list[Criterion] = [
    *(Confidence(0.5), Entropy(1.0), Margin(0.3), ScoreMargin(0.8), Patience(1), Patience(2)),
]

reproducible = settings(deadline=None, derandomize=True)
logits_lists = st.lists(st.floats(-30, 30), min_size=2, max_size=7)


def probabilities(logits: Sequence[float]) -> list[float]:
    """Softmax in plain Python, largest first."""
    top = max(logits)
    mass = [exp(z - top) for z in logits]
    return sorted((m / sum(mass) for m in mass), reverse=True)


def stages(*logits: Sequence[float], dtype: torch.dtype = torch.float64) -> Tensor:
    """(1, stages, classes)."""
    return torch.tensor([logits], dtype=dtype)


def far(a: float, b: float) -> bool:
    return abs(a - b) > 1e-9


class TestDefinitions:
    @reproducible
    @given(logits_lists, st.floats(0.001, 0.999))
    def test_confidence(self, logits: list[float], t: float) -> None:
        top = probabilities(logits)[0]
        assume(far(top, t))
        assert (Confidence(t).margin(stages(logits)) > 0).item() == (top < t)

    @reproducible
    @given(logits_lists, st.floats(0.001, 2))
    def test_entropy(self, logits: list[float], t: float) -> None:
        entropy = -sum(p * log(p) for p in probabilities(logits) if p > 0)
        assume(far(entropy, t))
        assert (Entropy(t).margin(stages(logits)) > 0).item() == (entropy > t)
        assert log_entropy(stages(logits)[:, -1]).exp().item() == pytest.approx(entropy, abs=1e-12)

    @reproducible
    @given(logits_lists, st.floats(0.001, 0.999))
    def test_margin(self, logits: list[float], t: float) -> None:
        first, second = probabilities(logits)[:2]
        assume(far(first - second, t))
        assert (Margin(t).margin(stages(logits)) > 0).item() == (first - second < t)

    @reproducible
    @given(logits_lists, st.floats(0.001, 20))
    def test_score_margin(self, logits: list[float], t: float) -> None:
        second, first = sorted(logits)[-2:]
        assume(far(first - second, t))
        assert (ScoreMargin(t).margin(stages(logits)) > 0).item() == (first - second < t)

    @reproducible
    @given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=2, max_size=9))
    def test_patience(self, logits: list[list[int]]) -> None:
        for patience in (1, 2, 3):
            agreements, previous, taken = 0, None, len(logits) - 1
            for stage, row in enumerate(logits):
                prediction = row.index(max(row))
                agreements = agreements + 1 if prediction == previous else 0
                previous = prediction
                if agreements == patience:
                    taken = min(taken, stage)
                    break
            criterion, seen = Patience(patience), stages(*map(list, logits))
            onward = [criterion.go_on(seen[:, : k + 1]) for k in range(len(logits) - 1)]
            assert first_exit(onward)[0].sum().item() == taken

    @reproducible
    @given(logits_lists, logits_lists)
    def test_disagreement_tells_the_predictions_apart(self, a: list[float], b: list[float]) -> None:
        classes = min(len(a), len(b))
        a, b = a[:classes], b[:classes]
        assume(len({round(z, 6) for z in a}) == len({round(z, 6) for z in b}) == classes)
        apart = disagreement(stages(a)[:, 0], stages(b)[:, 0])
        assert (apart > 0).item() == (a.index(max(a)) != b.index(max(b)))
        assert apart.abs() <= 1

    @pytest.mark.parametrize(
        "criterion", [Confidence([0.9, 0.2]), Margin([0.9, 0.2]), ScoreMargin([2.0, 0.5])]
    )
    def test_each_stage_has_its_threshold(self, criterion: Criterion) -> None:
        unsure = [1.0, 0.0, 0.0]
        assert criterion.margin(stages(unsure)) > 0
        assert criterion.margin(stages(unsure, unsure)) < 0


class TestMargins:
    @reproducible
    @given(st.lists(logits_lists, min_size=3, max_size=3), st.sampled_from([1.0, 50.0, 1e4]))
    def test_bounded_and_finite(self, rows: list[list[float]], scale: float) -> None:
        classes = min(map(len, rows))
        seen = scale * stages(*(r[:classes] for r in rows), dtype=torch.float32)
        for criterion in EVERY:
            pixels = seen.clone().requires_grad_()
            margin = criterion.margin(pixels)
            assert torch.isfinite(margin).all()
            assert (margin.abs() <= 1).all()
            if margin.requires_grad:
                (gradient,) = torch.autograd.grad(margin.sum(), pixels)
                assert torch.isfinite(gradient).all()
            if not criterion.proxy:
                assert torch.equal(criterion.go_on(seen), margin > 0)

    @pytest.mark.parametrize("scale", [1, 50, 1000])
    @pytest.mark.parametrize("criterion", EVERY, ids=repr)
    def test_not_blind_where_the_softmax_saturates(self, criterion: Criterion, scale: int) -> None:
        logits = torch.randn(64, 3, 10, generator=torch.Generator().manual_seed(0))
        seen = (scale * logits).requires_grad_()
        (gradient,) = torch.autograd.grad(criterion.margin(seen).sum(), seen)
        per_image = gradient.abs().amax((1, 2)) * scale
        assert per_image.min() > 1e-3

    def test_probabilities_would_be_blind(self) -> None:
        logits = (50 * torch.tensor([[5.0, 1.0, 0.0]])).requires_grad_()
        (gradient,) = torch.autograd.grad((0.7 - logits.softmax(1).amax(1)).sum(), logits)
        assert not gradient.any()
        (gradient,) = torch.autograd.grad(Confidence(0.7).margin(logits[:, None]).sum(), logits)
        assert gradient.any()

    @pytest.mark.parametrize("criterion", EVERY, ids=repr)
    def test_ascent_makes_the_network_go_on(self, criterion: Criterion) -> None:
        seen = torch.tensor([[[2.0, 0.5, 0.0], [1.8, 0.3, 0.1], [2.1, 0.4, 0.2]]])
        assert not criterion.go_on(seen)
        for _ in range(40):
            seen.requires_grad_()
            (gradient,) = torch.autograd.grad(criterion.margin(seen).sum(), seen)
            seen = seen.detach() + 0.05 * gradient.sign()
        assert criterion.go_on(seen)
        assert criterion.margin(seen) > 0


class TestEndsOfTheRange:
    saturated = torch.tensor([[[200.0, 0.0, -200.0]]])
    undecided = torch.zeros(1, 1, 3)

    @pytest.mark.parametrize("criterion", [Confidence(1), Entropy(0), Margin(1)], ids=repr)
    def test_never_stops(self, criterion: Criterion) -> None:
        assert criterion.go_on(self.saturated)
        assert criterion.go_on(self.undecided)

    @pytest.mark.parametrize(
        "criterion", [Confidence(0), Entropy(1.2), Margin(0), ScoreMargin(0)], ids=repr
    )
    def test_always_stops(self, criterion: Criterion) -> None:
        assert not criterion.go_on(self.saturated)
        assert not criterion.go_on(self.undecided)

    @pytest.mark.parametrize("cls", THRESHOLDED.values())
    @pytest.mark.parametrize("bad", [-0.1, float("nan"), [0.5, -1]])
    def test_out_of_range(self, cls: type[Criterion], bad: Any) -> None:
        with pytest.raises(UsageError, match="thresholds"):
            cls(bad)  # type: ignore[call-arg]

    @pytest.mark.parametrize("cls", [Confidence, Margin])
    def test_no_probability(self, cls: type[Criterion]) -> None:
        with pytest.raises(UsageError, match=r"\[1\.5\] are no probabilities"):
            cls([0.5, 1.5])  # type: ignore[call-arg]

    @pytest.mark.parametrize("bad", [0, -1, 1.5, True])
    def test_patience_counts(self, bad: Any) -> None:
        with pytest.raises(UsageError, match="whole number"):
            Patience(bad)


def sharp_head(width: int) -> nn.Sequential:
    """A classifier that is of several minds on random images."""
    head = pooled_head(width, 5)
    nn.init.normal_(head[2].weight, std=4)
    return head


def chain_of_stages(criterion: Any) -> EarlyExit:
    torch.manual_seed(0)
    widths = [(3, 4), (4, 6), (6, 8), (8, 8)]
    parts = [convolution(i, o, 2) for i, o in widths]
    return EarlyExit(parts, [sharp_head(o) for _, o in widths], criterion, (3, 16, 16))


def cascade(criterion: Any) -> Cascade:
    torch.manual_seed(1)
    models = [nn.Sequential(convolution(3, w, 2), sharp_head(w)) for w in (2, 4, 8)]
    return Cascade(models, criterion, (3, 16, 16))


def images() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    colours, pixels = (torch.rand(8, 3, n, n, generator=generator) for n in (1, 16))
    return colours * pixels


class OneClass(Criterion):
    """A user's own: only the margin is written."""

    def margin(self, stage_logits: Tensor) -> Tensor:
        return stage_logits[:, -1, 0].tanh()


OWN = [Confidence(0.3), Entropy(1.5), Margin(0.1), ScoreMargin(0.2), Patience(1), OneClass()]


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("criterion", OWN, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("build", [chain_of_stages, cascade])
def test_contract(build: Any, criterion: Criterion, check: Check) -> None:
    assert check(build(criterion), images()) == []


@pytest.mark.parametrize("criterion", OWN[:5], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("build", [chain_of_stages, cascade])
def test_some_leave_and_some_go_on(build: Any, criterion: Criterion) -> None:
    macs = audit(build(criterion), images()).macs
    assert macs.min() < macs.max()


def test_patience_decides_from_its_own_stage_on() -> None:
    trace = chain_of_stages(Patience(2)).trace(images())
    assert [gate.name for gate in trace.gates] == ["exits.2"]
    assert trace.gates[0].proxy
    assert trace.gates[0].reached.all()


def test_multi_scale_features_and_normalisation() -> None:
    class Split(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x, x[..., ::2]]

    class Coarse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3 * 16 * 8, 5)

        def forward(self, scales: list[Tensor]) -> Tensor:
            return self.linear(scales[-1].flatten(1))

    torch.manual_seed(0)
    parts = [Split(), nn.Identity()]
    scaling: dict[str, Any] = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 0.125]}
    victim = EarlyExit(parts, [Coarse(), Coarse()], 0.3, (3, 16, 16), **scaling)
    macs = audit(victim, images()).macs
    assert sorted(set(macs.tolist())) == [1920, 3840]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in scaling.values())
    stage_logits = victim.trace(images()).stage_logits
    assert stage_logits is not None
    expected = victim.heads[0]([((images() - mean) / std)[..., ::2]])
    torch.testing.assert_close(stage_logits[:, 0], expected)


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        ([0.5, 0.5], "2 thresholds for 3 decisions"),
        (Entropy([0.5, 0.5]), "2 thresholds for 3 decisions"),
        (1.5, "no probabilities"),
        (Patience(3), "cannot stop before stage 3"),
        (nn.Identity(), "no criterion"),
        ("entropy", "no criterion"),
    ],
)
def test_criteria_that_do_not_fit(criterion: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chain_of_stages(criterion)


def test_cascades_take_thresholds_or_a_criterion() -> None:
    assert repr(cascade([0.5, 0.9]).criterion) == "Confidence((0.5, 0.9))"
    with pytest.raises(UsageError, match="2 decisions"):
        cascade([0.5])
    with pytest.raises(UsageError, match="no probabilities"):
        cascade([0.5, 2])
    two = cascade([0.5, 0.5]).models
    saver = TinySaver(two[0], two[2], 0.4, (3, 16, 16))
    assert [gate.name for gate in saver.trace(images()).gates] == ["saver"]
