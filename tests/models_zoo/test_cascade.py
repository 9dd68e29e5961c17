"""Cascades of any classifiers, and TinySaver's search for the saver."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.cascade.cascade import Cascade, TinySaver, saver_threshold
from effattack.models_zoo.cascade.search import rank_savers, search_robust_saver, search_saver

SHAPE = (3, 4, 4)


def classifier(hidden: int, classes: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Linear(48, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    return nn.Sequential(nn.Flatten(), *layers).eval()


def macs(hidden: int) -> int:
    return 48 * hidden + hidden * 4


def records(seed: int, skills: list[float], count: int = 60) -> tuple[dict[str, Tensor], Tensor]:
    """Logits of models that are right as often as their skill, and more sure where they are."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    logits = {}
    for k, skill in enumerate(skills):
        right = torch.rand(count, generator=generator) < skill
        said = torch.where(right, labels, (labels + 1) % 4)
        sure = 3 * torch.rand(count, generator=generator) * (1 + right)
        logits[f"m{k}"] = nn.functional.one_hot(said, 4) * sure[:, None]
    return logits, labels


recorded = st.tuples(st.integers(0, 10_000), st.lists(st.floats(0, 1), min_size=1, max_size=4))


@settings(max_examples=25, deadline=None)
@given(recorded, st.lists(st.integers(1, 100), min_size=4, max_size=4))
@pytest.mark.slow
def test_the_search_never_picks_a_dominated_pair(
    record: tuple[int, list[float]], costs: list[int]
) -> None:
    logits, labels = records(*record)
    cost = {name: float(c) for name, c in zip(logits, costs, strict=False)}
    for base, pairs in rank_savers(logits, cost, labels).groupby("base"):
        best = pairs.iloc[0]
        cheaper = pairs.macs < best.macs
        better = (pairs.macs == best.macs) & (pairs.accuracy > best.accuracy)
        assert not (cheaper | better).any()
        assert (pairs.saver == "").sum() == 1
        assert {s for s in pairs.saver if s} == {n for n in cost if cost[n] < cost[base]}
        assert best.macs <= cost[base], "never worse than the base alone"


@settings(max_examples=25, deadline=None)
@given(recorded, st.data())
def test_the_better_the_base_the_higher_the_threshold(
    record: tuple[int, list[float]], data: st.DataObject
) -> None:
    """And on the images that such a saver answers, it matches the base but for the last step."""
    logits, labels = records(*record)
    saver, base = logits["m0"], logits[f"m{len(logits) - 1}"]
    corrected = torch.tensor(data.draw(st.lists(st.booleans(), min_size=60, max_size=60)))
    better = torch.where(corrected[:, None], nn.functional.one_hot(labels, 4).float(), base)
    threshold = saver_threshold(saver, base, labels)
    assert saver_threshold(saver, better, labels) >= threshold
    answered = saver.softmax(1).amax(1) > threshold + 0.001
    right = [(z.argmax(1) == labels)[answered].sum() for z in (saver, base)]
    assert right[0] >= right[1]


def test_expected_macs_and_accuracy_are_those_of_the_cascade() -> None:
    models = {"tiny": classifier(1, seed=1), "small": classifier(3), "large": classifier(20)}
    images = torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = models["large"](images).argmax(1)
    labels[::5] = (labels[::5] + 1) % 4
    _, table = search_saver(models, "large", images, labels)
    assert len(table) == 3
    for row in table[table.saver != ""].itertuples():
        cascade = TinySaver(models[row.saver], models["large"], row.threshold, SHAPE)
        assert audit(cascade, images).macs.mean().item() == pytest.approx(row.macs)
        predicted = cascade(images).argmax(1)
        assert (predicted == labels).double().mean().item() == pytest.approx(row.accuracy)
        assert row.saved == pytest.approx(row.exit_rate - cascade._cumulative_macs[0] / macs(20))


def test_the_best_saver_comes_as_a_victim() -> None:
    """Among equal savers the cheapest; a saver that agrees with the base answers everything."""
    base = classifier(20)
    models = {"base": base, "same": nn.Sequential(base, nn.Identity()), "tiny": constant(0)}
    images, labels = torch.rand(32, *SHAPE), torch.zeros(32, dtype=torch.long)
    victim, table = search_saver(models, "base", images, labels, name="found")
    assert isinstance(victim, TinySaver)
    assert (victim.name, table.saver[0], table.exit_rate[0]) == ("found", "tiny", 1)
    assert victim.models[1] is base


def test_no_saver_saves() -> None:
    """A saver that is always wrong, and costs nearly as much: the base alone is cheapest."""
    models = {"base": classifier(20), "wrong": classifier(18, seed=1)}
    images = torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(0))
    labels = (models["wrong"](images).argmax(1) + 1) % 4
    victim, table = search_saver(models, "base", images, labels)
    assert victim is None
    assert table.saver.tolist() == ["", "wrong"]
    assert table.saved[0] == 0 > table.saved[1]


class Brightness(nn.Module):
    """Two classes, by some pixels against grey: the logits differ by scale · Σ (x - 0.5)."""

    def __init__(self, pixels: list[int], scale: float) -> None:
        super().__init__()
        self.pixels = pixels
        self.linear = nn.Linear(len(pixels), 2)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[0.0], [scale]]).expand(2, len(pixels)))
            self.linear.bias.copy_(torch.tensor([0.0, -0.5 * scale * len(pixels)]))

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1)[:, self.pixels])


EPS = 8 / 255
FRAGILE, STURDY = Brightness([0], 300.0), Brightness([*range(1, 47)], 2.0)


def bright_and_dark(count: int = 40) -> tuple[Tensor, Tensor]:
    """On the 8-bit grid. Pixel 0 tells the classes apart by some 5 levels, the others by 25.

    In every tenth image all but the last pixel are on the wrong side, half a level from grey.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    side = (2 * labels - 1)[:, None]
    levels = 24.5 + torch.randint(0, 3, (count, 48), generator=generator)
    levels[:, 0] -= 20
    levels[::10, :47] = -0.5
    return ((127.5 + side * levels) / 255).view(count, *SHAPE), labels


def test_the_robust_search_ranks_by_the_closed_form_of_the_worst_case() -> None:
    """A linear saver's logits come closer by ε · ‖w‖₁ at most; each saver gets its lowest t."""
    images, labels = bright_and_dark()
    wide = nn.Linear(2, 400), nn.Linear(400, 2)
    for part in wide:
        nn.init.eye_(part.weight)
        nn.init.zeros_(part.bias)
    last = Brightness([47], 50.0)
    models = {"base": nn.Sequential(last, *wide), "fragile": FRAGILE, "sturdy": STURDY}
    victim, table = search_robust_saver(models, "base", images, labels, f"linf:{EPS}", name="kept")
    assert (victim.name, victim.models[0]) == ("kept", STURDY)
    assert table.saver.tolist() == ["sturdy", "", "fragile"]
    plain, _ = search_saver(models, "base", images, labels)
    assert plain.models[0] is FRAGILE, "the paper's search takes the cheaper one"
    spent, base = {"fragile": 2, "sturdy": 46 * 2}, 2 + 2 * 400 + 400 * 2
    for row in table[table.saver != ""].itertuples():
        saver = models[row.saver]
        with torch.no_grad():
            apart = saver(images).diff(dim=1).abs()[:, 0]
        weight = saver.linear.weight[1].abs().sum().item()
        doubt = apart - EPS * weight - torch.tensor(row.threshold).logit()
        assert doubt.abs().min() > 1e-3, "no image on the edge"
        expected = spent[row.saver] + (doubt < 0).double().mean().item() * base
        assert row.attacked_macs == pytest.approx(expected)
    assert (table.accuracy >= table.base_accuracy - 0.005).all()
    assert table[table.saver == ""].attacked_macs.item() == base


def test_the_lowest_threshold_is_the_best_under_any_attack() -> None:
    """Whatever the images are: at a higher threshold nothing stays that is handed on at a lower."""
    images = torch.rand(200, *SHAPE, generator=torch.Generator().manual_seed(1))
    saver, base = classifier(2, seed=1), classifier(20)
    spent = [TinySaver(saver, base, t, SHAPE).trace(images).macs for t in (0.3, 0.35, 0.4)]
    assert (spent[0] <= spent[1]).all()
    assert (spent[1] <= spent[2]).all()
    assert spent[0].sum() < spent[2].sum()


def constant(answer: int) -> nn.Module:
    """Says the same of every image, almost surely."""
    linear = nn.Linear(48, 4)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.copy_(12 * nn.functional.one_hot(torch.tensor(answer), 4))
    return nn.Sequential(nn.Flatten(), linear).eval()


def test_bad_searches() -> None:
    images, labels = torch.rand(4, *SHAPE), torch.zeros(4, dtype=torch.long)
    models = {"a": classifier(2), "b": classifier(4)}
    with pytest.raises(UsageError, match="unknown base model 'c'"):
        search_saver(models, "c", images, labels)
    with pytest.raises(UsageError, match="unknown base model 'c'"):
        search_robust_saver(models, "c", images, labels, "linf:1/255")
    with pytest.raises(UsageError, match="one label per image"):
        search_robust_saver(models, "a", images, labels[:3], "linf:1/255")
    with pytest.raises(UsageError, match="of the same classes"):
        search_saver({**models, "c": classifier(3, classes=5)}, "a", images, labels)
    with pytest.raises(UsageError, match="at least one"):
        search_saver(models, "a", images[:0], labels[:0])
    with pytest.raises(UsageError, match="one label per image"):
        search_saver(models, "a", images, labels[:3])
    with pytest.raises(UsageError, match="MACs of every model"):
        rank_savers({"a": torch.zeros(4, 3)}, {}, labels)


def test_models_that_make_no_cascade() -> None:
    with pytest.raises(UsageError, match=r"models have \[4, 5\] classes"):
        Cascade([classifier(2), classifier(3, classes=5)], [0.5], SHAPE)
    with pytest.raises(UsageError, match="at least two models"):
        Cascade([classifier(2)], [], SHAPE)
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="no probabilities"):
            TinySaver(classifier(2), classifier(3), threshold, SHAPE)


@pytest.mark.parametrize("stages", [2, 3, 5])
def test_any_number_of_stages(stages: int) -> None:
    models = [classifier(2 * k + 2, seed=k) for k in range(stages)]
    images = torch.rand(16, *SHAPE)
    never, always = Cascade(models, 0.0, SHAPE), Cascade(models, 1.0, SHAPE)
    spent = [macs(2 * k + 2) for k in range(stages)]
    assert audit(never, images).macs.tolist() == [spent[0]] * 16
    assert audit(always, images).macs.tolist() == [sum(spent)] * 16
    assert always.max_macs == sum(spent)
    assert [gate.name for gate in always.trace(images).gates] == [
        f"escalate.{k}" for k in range(stages - 1)
    ]
