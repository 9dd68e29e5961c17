"""The union against hand-made samples: what lies inside a budget, and what is worst of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hand_made import KINDS, samples

from effattack.results.caveats import caveats
from effattack.results.limits import judge, parse_limit
from effattack.results.scores import score_table
from effattack.results.union import asked, with_unions

EPS = 8 / 255
CLEAN = [20.0] * 4


def rows(attack: str, macs: list[float], **columns: object) -> pd.DataFrame:
    """Four images under an attack at 8/255 in l-inf, which they fill, unless told otherwise."""
    sizes = {"linf": EPS, "l2": 1.0, "l1": 30.0, "pixels": 16, **columns}
    return samples(attack, CLEAN, macs, **sizes)


def clean() -> pd.DataFrame:
    return rows("clean", CLEAN, threat="none", eps=0.0, linf=0.0, l2=0.0, l1=0.0, pixels=0)


def union(*frames: pd.DataFrame) -> pd.Series:
    """The only union of these rows."""
    table = score_table(pd.concat([clean(), *frames], ignore_index=True))
    (found,) = table[table.kind == "union"].itertuples(index=False)
    return pd.Series(found._asdict())


def test_every_image_counts_at_its_worst_whoever_found_it() -> None:
    """Slowdown 30, 60, 20, 20; PGD 20, 90, 70, 20; noise 20, 20, 80, 10: 30, 90, 80, 20."""
    found = union(
        rows("noise", [20.0, 20.0, 80.0, 10.0]),
        rows("Slowdown", [30.0, 60.0, 20.0, 20.0]),
        rows("PGD", [20.0, 90.0, 70.0, 20.0], prediction=[1, 0, 0, 1]),
    )
    assert found.macs == pytest.approx((30 + 90 + 80 + 20) / 4)
    assert found.savings_retained == pytest.approx(1 - (220 - 80) / (400 - 80))
    assert found.found_by == "Slowdown found 1 of 4, PGD 1, noise 1"
    assert (found.threat, found.eps, found.samples) == ("linf", EPS, 4)


def test_an_answer_is_right_only_where_it_is_under_every_row() -> None:
    wrong = [[1, 0, 0, 0], [0, 1, 0, 0]]
    both = [rows(a, CLEAN, prediction=p) for a, p in zip(("Slowdown", "PGD"), wrong, strict=True)]
    assert union(*both).accuracy == 0.5
    assert union(*both).agreement == 0.5


def test_the_worst_seed_counts() -> None:
    seeds = [rows("Slowdown", [20.0 + 10 * s, *CLEAN[1:]], seed=s) for s in range(3)]
    assert union(*seeds).macs == pytest.approx((40 + 60) / 4)


@pytest.mark.parametrize(
    ("columns", "counts"),
    [
        ({"threat": "linf", "eps": 4 / 255, "linf": 4 / 255}, True),  # a smaller budget
        ({"threat": "l2", "eps": 9.0, "linf": 7 / 255}, True),  # another norm, but small enough
        ({"threat": "box", "eps": 1.0, "linf": EPS * (1 + 1e-7)}, True),  # float32 rounds up
        ({"threat": "box", "eps": 1.0, "linf": [0.0, 0.0, 0.0, 9 / 255]}, False),  # one is outside
        ({"threat": "l2", "eps": 0.1, "linf": 9 / 255}, False),
        ({"threat": "patch", "eps": 2.0, "linf": 0.9}, False),
    ],
)
def test_what_lies_inside_is_measured(columns: dict[str, object], counts: bool) -> None:
    found = union(rows("PGD", [90.0, *CLEAN[1:]], **columns), rows("Slowdown", CLEAN))
    assert found.macs == (150 / 4 if counts else 20)


@pytest.mark.parametrize(
    ("threat", "eps", "inside"),
    [
        ("l2", 1.0, True),
        ("l2", 0.99, False),
        ("l1", 30.0, True),
        ("l1", 29.0, False),
        ("pixels", 16.0, True),
        ("pixels", 15.0, False),
        ("patch", 9.0, False),  # how a change lies in the image was not stored
    ],
)
def test_any_norm_is_measured(threat: str, eps: float, inside: bool) -> None:
    sizes = {"l2": 0.5, "l1": 9.0, "pixels": 3}
    judged = rows("Slowdown", CLEAN, threat=threat, eps=eps, linf=0.9, **sizes)
    found = union(judged, rows("PGD", [90.0, *CLEAN[1:]]))
    assert (found.threat, found.eps) == (threat, eps)
    assert (found.macs > 20) == inside


def test_what_was_not_measured_lies_inside_its_own_threat() -> None:
    """Frames of earlier versions lack some norms; a patch of 4 lies in one of 8."""
    bare = [
        rows("Slowdown", CLEAN, threat="patch", eps=8.0),
        rows("PGD", [90.0, *CLEAN[1:]], threat="patch", eps=4.0),
        rows("DeepSloth", [95.0, *CLEAN[1:]], threat="patch", eps=9.0),
    ]
    table = score_table(pd.concat([clean(), *bare]).drop(columns=["l2", "l1", "pixels"]))
    unions = table[table.kind == "union"].set_index("eps")
    assert unions.macs.to_dict() == {8.0: 150 / 4, 9.0: 155 / 4}


def test_the_asked_budgets_are_those_of_compute_attacks() -> None:
    noise = [rows("noise", CLEAN), rows("noise", CLEAN, threat="l2", eps=2.0)]
    box = rows("DeepSloth", CLEAN, threat="box", eps=1.0, linf=1.0)
    both = pd.concat([*noise, rows("Slowdown", CLEAN, eps=4 / 255), box])
    assert asked(both) == [("linf", 4 / 255)]
    assert asked(pd.concat([*noise, box])) == [("box", 1.0)], "all that was asked for"
    assert asked(pd.concat(noise)) == [("linf", EPS), ("l2", 2.0)], "where none applied"
    assert asked(clean()) == []


def test_every_budget_has_a_union_and_limits_judge_the_worst() -> None:
    small = rows("Slowdown", [30.0, *CLEAN[1:]], eps=4 / 255, linf=4 / 255)
    table = score_table(pd.concat([clean(), small, rows("Slowdown", [80.0, *CLEAN[1:]])]))
    unions = table[table.kind == "union"].set_index("eps")
    assert unions.macs.to_dict() == {4 / 255: 90 / 4, EPS: 140 / 4}
    (verdict,) = judge(table, [parse_limit("macs=30", fail_below=False)])
    assert not verdict.passed
    assert "Slowdown at eps 8/255 moved the MACs per input 20 → 35" in verdict.message
    assert "Slowdown found 1 of 4" in verdict.message


def test_accuracy_attacks_count_for_limits_but_not_on_the_clock() -> None:
    slow = rows("PGD", [60.0] * 4, prediction=1, seconds=9e-3)
    table = score_table(pd.concat([clean(), rows("Slowdown", [30.0] * 4), slow]))
    limits = [("savings_retained=0.6", True), ("accuracy=0.5", True), ("latency_ratio=3", False)]
    parsed = [parse_limit(text, fail_below=below) for text, below in limits]
    savings, accuracy = (judge(table, [limit])[0] for limit in parsed[:2])
    assert (savings.passed, accuracy.passed) == (False, False)
    assert "PGD at eps 8/255 moved the MACs" in savings.message
    assert "keep it under every row inside eps 8/255" in accuracy.message
    six = pd.concat([part.assign(sample=part["sample"] + 4 * k) for k in range(2) for part in (
        clean(), rows("Slowdown", [30.0] * 4), slow)])  # fmt: skip
    assert judge(score_table(six), parsed[2:])[0].passed


def test_frames_of_many_victims_are_judged_apart() -> None:
    one = pd.concat([clean(), rows("Slowdown", [30.0] * 4)])
    other = pd.concat([clean(), rows("Slowdown", [80.0] * 4)]).assign(victim="other")
    found = with_unions(pd.concat([one, other])).query("kind == 'union'")
    assert found.groupby("victim").macs.mean().to_dict() == {"toy": 30, "other": 80}


def said(*frames: pd.DataFrame, **meta: object) -> str:
    """The caveats beside the score of these rows, and the clean images."""
    table = score_table(pd.concat([clean(), *frames], ignore_index=True))
    return "; ".join(caveats(table, meta))


FAR = {"threat": "box", "eps": 1.0, "linf": 1.0}


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (
            [rows("Slowdown", [30.0] * 4), rows("uniform", [80.0] * 4, **FAR)],
            "outside the budget, `uniform` reached ×4.00; the verdict, ×1.50, is that of eps 8/255",
        ),
        ([rows("Slowdown", [30.0] * 4)], "the declared max is ×3.3 what any input reached"),
        ([rows("Slowdown", CLEAN)], "neither an attack nor a control moved its MACs"),
        ([rows("noise", CLEAN), rows("PGD", [60.0] * 4)], "no compute attack ran"),
        (
            [rows("QueryAttack", [60.0] * 4)],
            "only queries looked for dear inputs, at most 50 an input, and all that was found took "
            "back 50% of the savings: more may exist",
        ),
        ([rows("QueryAttack", [60.0] * 4, max_macs=np.nan)], "its max is unknown"),
        ([rows("Slowdown", [60.0] * 4), rows("uniform", [60.0] * 4, **FAR)], ""),
    ],
)
def test_what_is_said_beside_the_score(frames: list[pd.DataFrame], words: str) -> None:
    asked_for = ["Slowdown(eps=8/255, seed=0)", "QueryAttack(eps=8/255, queries=50, seed=0)"]
    found = said(*frames, attacks=asked_for)
    assert words in found
    assert words or not found


def test_a_constant_victim_and_an_earlier_version_need_no_caveats() -> None:
    table = score_table(pd.concat([clean(), rows("uniform", CLEAN, **FAR)]).assign(constant=True))
    assert caveats(table, {}) == []
    assert "uniform" in KINDS
    assert caveats(score_table(rows("Slowdown", CLEAN)).query("kind != 'union'"), {}) == []


def test_the_interval_of_a_union_ends_where_nothing_is_lost() -> None:
    """It counts the clean input, so that it is never cheaper than clean."""
    clean = [float(20 + 5 * image) for image in range(8)]
    frames = [samples(attack, clean, clean, linf=EPS) for attack in ("Slowdown", "noise")]
    table = score_table(pd.concat(frames, ignore_index=True))
    assert table[table.attack == "Slowdown"].savings_retained_high.item() > 1
    assert table[table.attack == "union"].savings_retained_high.item() == 1
