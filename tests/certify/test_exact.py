"""Exact worst cases: against every input of small grids, closed forms, and all attacks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toys import LinearSaver, embedded, grey_images, noise_images

from effattack.attacks import build
from effattack.certify.exact import exact, optima
from effattack.certify.exact.encoding import Encoding
from effattack.certify.exact.gates import TOLERANCE
from effattack.certify.exact.reading import Reader
from effattack.certify.linear import linear_bounds
from effattack.domains import Series
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo import Cascade, EarlyExit, SkipNet
from effattack.models_zoo.criteria import Confidence, ScoreMargin
from effattack.models_zoo.digits import small_digits
from effattack.models_zoo.exam.networks import Shortcut, rectified
from effattack.models_zoo.layer_skipping.score_gate import ScoreMarginGate
from effattack.threats import parse_threat
from effattack.victim import Opaque, Victim, audit
from effattack.victim.margins import score_lead

TWO = (1, 1, 2)
"""Two pixels: all inputs of a small ball can be tried."""
LEVELS = 16
reproducible = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def at_clean(scores: Tensor, share: float) -> float:
    """A threshold that is this share of the lead of (1, classes) scores."""
    return share * score_lead(scores).item()


def tiny_exit(seed: int, share: float, clean: Tensor) -> Victim:
    torch.manual_seed(seed)
    stages = [nn.Sequential(nn.Flatten(), *rectified(2, 6)), rectified(6, 5), rectified(5, 4)]
    heads = [nn.Linear(width, 3) for width in (6, 5, 4)]
    scaling: dict[str, Any] = {"mean": [0.4], "std": [0.2]}
    leads = score_lead(EarlyExit(stages, heads, 0.5, TWO, **scaling).trace(clean).stage_logits[0])
    criterion = ScoreMargin((share * leads[:-1]).tolist())
    return EarlyExit(stages, heads, criterion, TWO, **scaling)


def tiny_cascade(seed: int, share: float, clean: Tensor) -> Victim:
    torch.manual_seed(seed)
    models = [
        nn.Sequential(nn.Flatten(), *rectified(2, width), nn.Linear(width, 3))
        for width in (3, 5, 7)
    ]
    thresholds = [at_clean(model(clean), share) for model in models[:-1]]
    return Cascade(models, ScoreMargin(thresholds), TWO)


def tiny_skip(seed: int, share: float, clean: Tensor) -> Victim:
    """A gated block, one that always runs, and another gated one, whose gate has two scores."""
    torch.manual_seed(seed)
    stem = nn.Sequential(nn.Flatten(), *rectified(2, 4))
    first, second = (Shortcut(nn.Sequential(*rectified(4, k), nn.Linear(k, 4))) for k in (3, 5))
    always, scores = rectified(4, 4), [nn.Linear(4, 3), nn.Linear(4, 2)]
    features = stem(clean)
    opening = ScoreMarginGate(scores[0], at_clean(scores[0](features), share))
    features = always(first(features) if share > 1 else features)
    closing = ScoreMarginGate(scores[1], at_clean(scores[1](features), 2 - share))
    blocks, gates = [first, always, second], [opening, None, closing]
    return SkipNet(stem, blocks, gates, nn.Linear(4, 3), TWO)


TINY: dict[str, Callable[[int, float, Tensor], Victim]] = {
    "exit": tiny_exit,
    "cascade": tiny_cascade,
    "skip": tiny_skip,
}


def everything(clean: Tensor, levels: int) -> Tensor:
    """All inputs of the grid within some levels of two pixels (1, 1, 1, 2)."""
    moves = torch.tensor(list(product(range(-levels, levels + 1), repeat=2)))
    return ((clean.flatten() * 255).round() + moves).clamp(0, 255).view(-1, *TWO) / 255


def margins(victim: Victim, inputs: Tensor) -> Tensor:
    """(B, gates): how near each decision is to its threshold."""
    return torch.cat([gate.margin.abs() for gate in victim.trace(inputs).gates], 1)


@settings(reproducible, max_examples=15)
@given(st.sampled_from(sorted(TINY)), st.integers(0, 10**6), st.sampled_from([0.7, 0.9, 1.1]))
def test_it_is_the_worst_of_all_inputs_of_the_grid(kind: str, seed: int, share: float) -> None:
    clean = noise_images(1, seed, TWO)
    victim = TINY[kind](seed, share, clean)
    (found,) = optima(victim, clean, f"linf:{LEVELS}/255")
    with torch.no_grad():
        worst = victim.trace(everything(clean, LEVELS)).macs.max().item()
    assert found.bound >= worst
    assert found.found <= worst
    if found.status == "solved":
        assert found.found == found.bound == worst
    else:
        assert found.status == "open", "nothing here takes twenty seconds"
        assert margins(victim, everything(clean, LEVELS)).min() < 100 * TOLERANCE


@settings(reproducible, max_examples=20)
@given(st.sampled_from(["exit", "cascade"]), st.integers(0, 10**6), st.integers(1, 12))
@pytest.mark.slow
def test_linear_bounds_of_random_networks_end_no_lower(kind: str, seed: int, levels: int) -> None:
    clean = noise_images(1, seed, TWO)
    victim = TINY[kind](seed, 0.7, clean)
    threat = parse_threat(f"linf:{levels}/255").on(victim.domain)
    (found,) = optima(victim, clean, threat)
    assert found.found <= linear_bounds(victim, clean, threat).most.item()


@pytest.mark.slow
@pytest.mark.parametrize("kind", TINY)
def test_the_grids_are_no_easy_ones(kind: str) -> None:
    """Some inputs cannot be made worse, some can, to several ends; nearly all are solved."""
    worse, ends, status = [], set(), []
    for seed in range(24):
        clean = noise_images(1, seed, TWO)
        victim = TINY[kind](seed, 0.85, clean)
        (found,) = optima(victim, clean, f"linf:{LEVELS}/255")
        worse.append(found.clean < found.found)
        ends.add(found.found)
        status.append(found.status)
    assert 4 <= sum(worse) <= 20
    assert len(ends) >= 2
    assert status.count("solved") >= 23


class TestALinearGate:
    """It opens within so many levels if and only if they move the difference far enough."""

    @staticmethod
    def victim(toy: LinearSaver) -> Victim:
        """The toy's saver in front of a network that is always the same."""
        after = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 2))
        stages, heads = [nn.Flatten(), nn.Identity()], [toy.saver, after]
        return EarlyExit(stages, heads, ScoreMargin(toy.doubt), (1, 4, 4))

    @settings(reproducible, max_examples=20)
    @given(st.integers(0, 10**6), st.integers(1, 70))
    def test_the_closed_form(self, seed: int, levels: int) -> None:
        toy = LinearSaver(seed=seed)
        images, victim = grey_images(4, seed), self.victim(toy)
        found = optima(victim, images, f"linf:{levels}/255")
        spare = toy.reach(levels) - toy.missing(images)
        for each, room in zip(found, spare.tolist(), strict=True):
            if abs(room) > 10 * TOLERANCE:
                assert each.status == "solved"
                assert (each.found == victim.max_macs) == (room > 0)

    def test_the_whole_range_is_a_box(self) -> None:
        toy = LinearSaver()
        certificate = exact(self.victim(toy), grey_images(3), "box")
        assert (certificate.most == certificate.ceiling).all()
        assert certificate.certified_retained == 0
        assert certificate.known.all()


@pytest.mark.parametrize("name", ["exam_exit", "exam_cascade", "exam_skip"])
class TestTheExam:
    @pytest.mark.parametrize("attack", ["Slowdown(steps=20)", "QueryAttack(queries=60)"])
    def test_no_attack_ends_above_it(self, name: str, attack: str) -> None:
        victim, images = embedded(name), small_digits("heldout")[0][:6]
        certificate = exact(victim, images, "linf:14/255")
        found = build(attack, victim, parse_threat("linf:14/255"))(images)
        macs = victim.trace(found).macs
        assert (macs <= certificate.most).all()
        assert (certificate.clean <= certificate.most).all()

    def test_witnesses_do_what_is_said(self, name: str) -> None:
        victim, images = embedded(name), small_digits("heldout")[0][:6]
        threat = parse_threat("linf:14/255").on(victim.domain)
        found = optima(victim, images, threat)
        witnesses = torch.cat([each.witness for each in found])
        threat.check(witnesses, images)
        assert audit(victim, witnesses).macs.tolist() == [each.found for each in found]
        assert [each.status for each in found] == ["solved"] * 6
        assert [each.clean for each in found] == victim.trace(images).macs.tolist()
        assert any(each.found > each.clean for each in found)

    def test_without_time_the_ceiling_stands_and_is_marked(self, name: str) -> None:
        victim, images = embedded(name), small_digits("heldout")[0][:4]
        certificate = exact(victim, images, "linf:14/255", time_limit=1e-9)
        assert (certificate.most == victim.max_macs).all()
        assert "timed out" in certificate.note
        below = certificate.clean < victim.max_macs
        assert not certificate.known[below].any()

    @pytest.mark.parametrize("threat", ["linf:2/255", "linf:8/255"])
    def test_linear_bounds_end_no_lower(self, name: str, threat: str) -> None:
        victim, images = embedded(name), small_digits("heldout")[0][:8]
        if name == "exam_skip":
            with pytest.raises(NotApplicable, match="no chain"):
                linear_bounds(victim, images, parse_threat(threat).on(victim.domain))
            return
        bound = linear_bounds(victim, images, parse_threat(threat).on(victim.domain))
        optimum = exact(victim, images, threat)
        assert (optimum.most <= bound.most).all()
        assert (bound.most < bound.ceiling).any() or threat != "linf:2/255"

    def test_a_larger_ball_is_no_better(self, name: str) -> None:
        victim, images = embedded(name), small_digits("heldout")[0][6:10]
        most = [exact(victim, images, f"linf:{e}/255").most for e in (4, 8, 12)]
        assert all((small <= large).all() for small, large in pairwise(most))


@settings(reproducible, max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.01, 1.0))
def test_bounds_hold_on_every_input(seed: int, radius: float) -> None:
    torch.manual_seed(seed)
    body = nn.Sequential(*rectified(6, 8), nn.Linear(8, 6))
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Shortcut(body), *rectified(6, 5))
    network = network.append(nn.Linear(5, 3)).double()
    centre = torch.rand(4).double()
    encoding = Encoding((centre - radius).numpy(), (centre + radius).numpy())
    lower, upper = encoding.bounds(Reader().read(network, encoding.inputs, encoding))
    corners = torch.tensor(list(product((-1.0, 1.0), repeat=4))).double()
    inside = torch.cat([corners, 2 * torch.rand(200, 4).double() - 1])
    with torch.no_grad():
        values = network(centre + radius * inside).numpy()
    assert (values >= lower - 1e-9).all()
    assert (values <= upper + 1e-9).all()


def test_series_without_a_grid_are_solved_too() -> None:
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Flatten(), *rectified(5, 6)), rectified(6, 6)]
    heads = [nn.Linear(6, 3), nn.Linear(6, 3)]
    domain = Series(1, 5, low=-2.0, high=2.0)
    victim = EarlyExit(stages, heads, ScoreMargin(0.2), domain=domain)
    series = 4 * torch.rand(12, 1, 5) - 2
    found = optima(victim, series, "linf:.3")
    assert {each.status for each in found} == {"solved"}
    assert any(each.clean < each.found for each in found)
    assert any(each.found < victim.max_macs for each in found)
    noise = series + 0.3 * (2 * torch.rand(200, 12, 1, 5) - 1)
    for batch in noise.clamp(-2, 2):
        assert (victim.trace(batch).macs <= torch.tensor([each.bound for each in found])).all()


class TestRefused:
    images = noise_images(1, 0, TWO)

    @pytest.mark.parametrize("threat", ["l2:1.0", "l1:2", "patch:1", "pixels:1"])
    def test_no_box(self, threat: str) -> None:
        with pytest.raises(NotApplicable, match="no box"):
            exact(tiny_exit(0, 0.7, self.images), self.images, threat)

    def test_other_criteria(self) -> None:
        parts = tiny_exit(0, 0.7, self.images)
        victim = EarlyExit(list(parts.stages), list(parts.heads), Confidence(0.5), TWO)
        with pytest.raises(NotApplicable, match=r"stops by Confidence\(0.5\).*exam_exit"):
            exact(victim, self.images, "linf:2/255")

    def test_other_layers(self) -> None:
        stages = [nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)]
        heads = [nn.Sequential(nn.Flatten(), nn.Linear(2, 3)) for _ in stages]
        victim = EarlyExit(stages, heads, ScoreMargin(0.5), TWO)
        with pytest.raises(NotApplicable, match="Conv2d has no exact"):
            exact(victim, self.images, "linf:2/255")

    def test_decisions_in_a_stage(self) -> None:
        class Fickle(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x if x.sum() > 0 else -x

        stages = [nn.Sequential(nn.Flatten(), Fickle()), nn.Linear(2, 2)]
        victim = EarlyExit(stages, [nn.Linear(2, 3), nn.Linear(2, 3)], ScoreMargin(0.5), TWO)
        with pytest.raises(NotApplicable, match="control flow"):
            exact(victim, self.images, "linf:2/255")

    @pytest.mark.parametrize(
        "victim", [lambda: Opaque(LinearSaver(), (1, 4, 4)), lambda: embedded("digits_skipnet")]
    )
    def test_no_structure(self, victim: Callable[[], Victim]) -> None:
        with pytest.raises(NotApplicable, match="does not say what it is made of"):
            exact(victim(), torch.zeros(1, *victim().input_shape), "linf:2/255")

    def test_no_time(self) -> None:
        with pytest.raises(UsageError, match="time_limit = 0"):
            exact(tiny_exit(0, 0.7, self.images), self.images, "linf:2/255", time_limit=0)


def test_the_lead_is_the_difference_of_the_top_two() -> None:
    assert score_lead(torch.tensor([[1.0, 5.0, 3.5], [2.0, 2.0, 0.0]])).tolist() == [1.5, 0.0]
