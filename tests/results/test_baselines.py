"""Baselines: what is stored, what is compared, and which files are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effattack.errors import UsageError
from effattack.results.baseline_paths import path_of
from effattack.results.baseline_schema import SCORES
from effattack.results.baselines import SCHEMA, Baseline, Record, Series, commit
from effattack.results.changes import Comparison, compare
from effattack.results.evaluation import Evaluation
from effattack.runs.evaluate import evaluate


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """The toy on forty images, under one attack that takes back some of its savings."""
    victim = toys.LinearSaver(seed=1)
    images = toys.grey_images(40)
    labels = victim(images).argmax(1)
    return evaluate(victim, images, labels, ["Slowdown"], eps=4 / 255, timed=0)


@pytest.fixture
def file(evaluation: Evaluation, tmp_path: Path) -> Path:
    """Its baseline."""
    return Baseline.of(evaluation).save(path_of("v1", tmp_path))


def changed(evaluation: Evaluation, **columns: Callable[[pd.DataFrame], object]) -> Evaluation:
    """The evaluation with columns of the attacked rows replaced."""
    samples = evaluation.samples.copy()
    rows = samples.attack == "Slowdown"
    for column, value in columns.items():
        samples.loc[rows, column] = value(samples[rows])
    return Evaluation(samples, evaluation.meta)


def timed(evaluation: Evaluation, ratio: float) -> Evaluation:
    """The evaluation with times, the attacked ones longer."""
    jitter = np.random.default_rng(0).uniform(0.99, 1.01, len(evaluation.samples))
    samples = evaluation.samples.assign(seconds=ratio * jitter, clean_seconds=1.0, clock="wall")
    return Evaluation(samples, evaluation.meta)


def against(before: Evaluation, after: Evaluation) -> Comparison:
    return compare(after, Baseline.of(before), "v1")


def test_it_is_readable_and_comes_back_as_it_was(evaluation: Evaluation, file: Path) -> None:
    content = json.loads(file.read_text())
    assert content["schema"] == SCHEMA
    made = {"created", "command", "commit", "attacks", "seeds", "packages", "machine"}
    assert set(content["made"]) == made
    assert {"effattack", "torch", "pytest"} <= set(content["made"]["packages"])
    record = content["victims"]["toy"]
    assert record["digest"]
    assert len(record["data"]) == 1
    assert len(file.read_text().splitlines()) < 150
    assert json.loads(json.dumps(content)) == content
    series = Baseline.of(evaluation).victims["toy"].series
    for stored, found in zip(Baseline.load(file).victims["toy"].series, series, strict=True):
        assert (stored.attack, stored.macs, stored.correct) == (
            found.attack,
            found.macs,
            found.correct,
        )
    assert not list(file.parent.glob("*.draft"))


def test_inputs_of_parts_have_no_shape_and_are_read_again(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    about = {**evaluation.meta["victims"]["toy"], "input_shape": []}
    meta = {**evaluation.meta, "victims": {"toy": about}}
    path = Baseline.of(Evaluation(evaluation.samples, meta)).save(path_of("parts", tmp_path))
    assert Baseline.load(path).victims["toy"].input_shape == []


def test_the_same_again_is_no_change(evaluation: Evaluation, file: Path) -> None:
    found = compare(evaluation, Baseline.load(file), "v1")
    assert {change.score for change in found.changes} == {"accuracy", "macs", "savings_retained"}
    assert found.moved == []
    assert found.notes == []


def test_a_regression_is_told_with_its_interval(evaluation: Evaluation) -> None:
    worse = changed(evaluation, macs=lambda rows: rows.max_macs)
    found = against(evaluation, worse)
    (change,) = found.worse
    assert (change.score, change.after) == ("savings_retained", 0)
    assert change.by.low < change.by.value < change.by.high < 0
    assert str(change).startswith("toy under Slowdown at eps 4/255: savings retained 0.")
    assert " (interval -0." in str(change)
    back = against(worse, evaluation)
    assert back.worse == []
    assert [each.score for each in back.moved] == ["savings_retained"]


def test_one_image_more_is_inside_the_noise(evaluation: Evaluation) -> None:
    def one_more(rows: pd.DataFrame) -> object:
        macs = rows.macs.copy()
        macs[macs.idxmin()] = rows.max_macs.iloc[0]
        return macs

    found = against(evaluation, changed(evaluation, macs=one_more))
    savings = next(change for change in found.changes if change.score == "savings_retained")
    assert savings.before > savings.after
    assert not savings.moved


@pytest.mark.parametrize("images", [1, 3, 5])
def test_few_images_judge_nothing_and_say_so(evaluation: Evaluation, images: int) -> None:
    few = Evaluation(evaluation.samples[evaluation.samples["sample"] < images], evaluation.meta)
    worse = changed(few, macs=lambda rows: rows.max_macs, prediction=lambda rows: 1 - rows.label)
    found = against(few, worse)
    assert found.changes
    assert (found.judged, found.moved, found.worse) == ([], [], [])
    assert found.notes == [
        f"toy: {images} images are too few to judge a change since v1: score at least 6, and save "
        "it again with --save"
    ]


def record(rng: np.random.Generator, images: int, moving: float) -> Record:
    """Scores of clean images, and of an attack that moves some of them to the max."""
    clean = rng.uniform(20, 80, images)
    attacked = np.where(rng.random(images) < moving, 100, clean)
    both = [
        Series(
            attack=name,
            kind=kind,
            threat="linf",
            eps=0.1,
            scores=dict.fromkeys(SCORES, 1.0),
            macs=macs.tolist(),
            correct=(rng.random(images) < moving).astype(float).tolist(),
            slowdown=rng.lognormal(0, 0.1, images).tolist(),
        )
        for name, kind, macs in (("clean", "control", clean), ("Slowdown", "compute", attacked))
    ]
    return Record("cascade", [1, 4, 4], 2, 100.0, "0", ["0"], both)


@pytest.mark.parametrize("images", [1, 2, 3, 6, 20])
def test_alarms_are_as_rare_as_said(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch, images: int
) -> None:
    """Draws of the same kind: all scores of a victim together fall in at most 1 of 40."""
    rng = np.random.default_rng(0)
    made = Baseline.of(evaluation).made
    alarms = 0
    for moving in np.repeat([0.02, 0.5, 0.98], 12):
        now, then = (Baseline(made, {"toy": record(rng, images, moving)}) for _ in range(2))
        monkeypatch.setattr(Baseline, "of", lambda _, now=now: now)
        alarms += bool(compare(evaluation, then, "v1").worse)
    assert alarms <= 3


def test_accuracy_lost_under_attack_is_a_regression(evaluation: Evaluation) -> None:
    wrong = changed(evaluation, right=lambda rows: False)
    assert [change.score for change in against(evaluation, wrong).worse] == ["accuracy"]


def test_latency_counts_on_the_same_machine_only(evaluation: Evaluation) -> None:
    before, after = timed(evaluation, 1.2), timed(evaluation, 1.8)
    (change,) = against(before, after).worse
    assert change.score == "latency_ratio"
    assert change.by.value == pytest.approx(1.5, rel=0.05)
    machine = {**evaluation.meta["environment"], "cpu": "another"}
    moved = Evaluation(after.samples, {**after.meta, "environment": machine})
    found = against(before, moved)
    assert found.worse == []
    (note,) = found.notes
    assert note.startswith("latency and energy not compared with v1: another machine (cpu ")
    assert note.endswith("'another' here)")


def test_energy_has_no_interval_and_is_not_judged(evaluation: Evaluation) -> None:
    def metered(joules: float) -> Evaluation:
        return Evaluation(
            evaluation.samples.assign(joules=joules, clean_joules=1.0), evaluation.meta
        )

    found = against(metered(1.0), metered(3.0))
    assert found.worse == []
    energy = next(change for change in found.changes if change.score == "energy_ratio")
    assert str(energy).endswith("energy ratio 1.000 → 3.000, ×3.000 (no interval, not judged)")


def test_what_an_accuracy_attack_finds_is_a_regression_of_the_union(evaluation: Evaluation) -> None:
    """The compute attack does what it did; the verdict got worse all the same."""
    attack = evaluation.samples[evaluation.samples.attack == "Slowdown"]
    pgd = attack.assign(attack="PGD", kind="accuracy", macs=attack.clean_macs)

    def beside(rows: pd.DataFrame) -> Evaluation:
        return Evaluation(pd.concat([evaluation.samples, rows]), evaluation.meta)

    before, after = beside(pgd), beside(pgd.assign(macs=pgd.max_macs))
    (change,) = against(before, after).worse
    assert (change.attack, change.score, change.after) == ("union", "savings_retained", 0)
    assert against(before, before).worse == []
    assert against(evaluation, before).notes == [
        "toy: the union was not compared: other attacks than in v1 made it"
    ]


def test_without_a_max_the_macs_ratio_is_compared(evaluation: Evaluation) -> None:
    about = {**evaluation.meta["victims"]["toy"], "max_macs": np.nan}
    meta = {**evaluation.meta, "victims": {"toy": about}}
    unknown = Evaluation(evaluation.samples.assign(max_macs=np.nan), meta)
    worse = changed(unknown, macs=lambda rows: rows.clean_macs * 5)
    assert [change.score for change in against(unknown, worse).worse] == ["macs_ratio"]


def test_what_is_on_one_side_only_is_noted(evaluation: Evaluation) -> None:
    clean = Evaluation(evaluation.samples[evaluation.samples.attack != "Slowdown"], evaluation.meta)
    assert against(evaluation, clean).notes == ["toy: Slowdown at eps 4/255 of v1 did not run now"]
    assert against(clean, evaluation).notes == [
        "toy: Slowdown at eps 4/255 not in v1, nothing to compare with"
    ]
    other = {**evaluation.meta, "attacks": ["Slowdown(eps=4/255, steps=500, seed=0)"]}
    found = against(evaluation, Evaluation(evaluation.samples, other))
    assert found.notes == ["settings of Slowdown are not those of v1"]


def test_of_an_attack_of_another_edition_it_is_said_that_it_grew(evaluation: Evaluation) -> None:
    first, second, other = (
        Evaluation(evaluation.samples, {**evaluation.meta, "attacks": [text, "noise(seed=0)"]})
        for text in (
            "AutoSlow(eps=4/255, seed=0)",
            "AutoSlow(eps=4/255, edition=2, seed=0)",
            "AutoSlow(eps=4/255, kappa=1, edition=2, seed=0)",
        )
    )
    assert against(first, first).notes == against(second, second).notes == []
    (grew,) = against(first, second).notes
    assert grew.startswith("the attack grew: AutoSlow is of edition 2 here, of edition 1 in v1; ")
    (shrank,) = against(second, first).notes
    assert shrank.startswith("the attack was stronger: AutoSlow is of edition 1 here, of edition 2")
    assert against(first, other).notes == ["settings of AutoSlow are not those of v1"]


def test_a_regression_under_a_grown_attack_is_told_beside_its_growth(
    evaluation: Evaluation,
) -> None:
    """Nobody can know whose doing it is: it stays red, and says why it may be."""
    grown = {**evaluation.meta, "attacks": [f"{evaluation.meta['attacks'][0][:-1]}, edition=9)"]}
    worse = changed(evaluation, macs=lambda rows: rows.max_macs)
    found = against(evaluation, Evaluation(worse.samples, grown))
    assert found.worse
    assert "the attack grew: Slowdown is of edition 9 here" in "".join(found.notes)


def test_threats_are_told_apart(evaluation: Evaluation) -> None:
    l2 = changed(evaluation, threat=lambda rows: "l2", macs=lambda rows: rows.max_macs)
    both = Evaluation.concat([evaluation, l2])
    assert against(both, both).moved == []
    (note, *_) = against(evaluation, both).notes
    assert note == "toy: Slowdown at l2 0.0157 not in v1, nothing to compare with"
    worse = changed(both, macs=lambda rows: rows.max_macs)
    (change,) = against(both, worse).worse
    assert change.threat == "linf"


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [
        ("family", "early exit", r"of another victim called toy \(family early exit there, casca"),
        ("input_shape", [3, 4, 4], r"of another victim called toy \(input shape \[3, 4, 4\] there"),
        ("data", ["0"], r"scored toy on other images \(40 there, 40 here\): use the same data"),
    ],
)
def test_a_baseline_of_something_else_is_refused(
    evaluation: Evaluation, fact: str, value: object, message: str
) -> None:
    baseline = Baseline.of(evaluation)
    record = replace(baseline.victims["toy"], **{fact: value})
    with pytest.raises(UsageError, match=message):
        compare(evaluation, Baseline(baseline.made, {"toy": record}), "v1")
    with pytest.raises(UsageError, match=r"baseline v1 holds other, not toy: compare with anoth"):
        compare(evaluation, Baseline(baseline.made, {"other": record}), "v1")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "v1.json is damaged or cut off .* restore it"),
        (lambda text: text.replace('"schema": 1', '"schema": 9'), "schema 9, this version reads"),
        (lambda text: "[]", "has schema None"),
        (
            lambda text: text.replace('"digest"', '"digets"'),
            r"v1.json: victims.toy.digest is missing: restore it from version control, or save it",
        ),
        (
            lambda text: text.replace('"macs": [', '"macs": [1, ', 1),
            r"toy.series\[0\].correct is \[1.*\]: it must be a list of 41: restore",
        ),
        (lambda text: text.replace('"attack": "clean"', '"attack": "x"'), "lacks the clean images"),
        (lambda text: "[" * 100_000, "is damaged or cut off"),
        (lambda text: text.replace('"seeds": [', '"seeds": [ ' + "9" * 5000 + ","), "is damaged"),
        (lambda text: text.replace('"schema": 1', '"schema": {}'), "has schema {}"),
    ],
)
def test_a_damaged_file_is_refused(file: Path, damage: Callable[[str], str], message: str) -> None:
    text = damage(file.read_text())
    assert text != file.read_text()
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        Baseline.load(file)


NUMBERS = [None, True, "7", [], {}, -1, 10**400, float("nan"), float("inf")]
WRONG = {
    "victims": [None, [], 3],
    "victims.toy": [None, [], "toy"],
    "victims.toy.max_macs": [0, *NUMBERS[1:]],
    "victims.toy.num_classes": [0, 1.5, *NUMBERS],
    "victims.toy.input_shape": [None, {}, [0], ["1"], 3],
    "victims.toy.data": [None, [1], "x"],
    "victims.toy.digest": [None, 1],
    "victims.toy.series": [None, [], [3], {}],
    "victims.toy.series.0.attack": [None, 1, []],
    "victims.toy.series.0.kind": [None, 1, "computed"],
    "victims.toy.series.0.eps": NUMBERS,
    "victims.toy.series.0.scores": [None, [], {}, {"accuracy": 1}],
    "victims.toy.series.0.scores.macs": [True, "7", [], 10**400, float("nan")],
    "victims.toy.series.0.macs": [None, [], 3, "7"],
    "victims.toy.series.0.macs.3": [0, *NUMBERS],
    "victims.toy.series.0.correct.3": [1.01, *NUMBERS],
    "victims.toy.series.0.slowdown": [None, [0], [-1], [1.0] * 41, ["1"]],
    "made": [None, [], {}],
    "made.attacks": [None, [1], "x"],
    "made.machine": [None, [], {"cpu": []}],
    "made.seeds": [None, ["0"], [10**400]],
}


def put(content: Any, field: str, value: object) -> None:
    """Replace one field, named from the outside inwards."""
    *path, last = (int(key) if key.isdigit() else key for key in field.split("."))
    for key in path:
        content = content[key]
    content[last] = value


@pytest.mark.parametrize("field", WRONG)
def test_a_value_of_another_type_or_range_is_named(file: Path, field: str) -> None:
    whole = file.read_text()
    *_, last = [key for key in field.split(".") if not key.isdigit()]
    for value in WRONG[field]:
        content = json.loads(whole)
        put(content, field, value)
        file.write_text(json.dumps(content))
        with pytest.raises(
            UsageError, match=rf"v1\.json: .*{last}.* (it must be|missing).*restore"
        ):
            Baseline.load(file)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


def shapes(value: object) -> object:
    """What a value is made of, down to the types of its leaves."""
    if isinstance(value, dict):
        return {key: shapes(one) for key, one in value.items()}
    return {str(shapes(one)) for one in value} if isinstance(value, list) else type(value)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(WRONG)), ANY)
def test_a_changed_file_is_read_as_a_baseline_or_refused(
    file: Path, field: str, value: object
) -> None:
    whole = json.loads(file.read_text())
    put(whole, field, value)
    changed = file.with_name("v2.json")
    changed.write_text(json.dumps(whole))
    try:
        found = Baseline.load(changed)
    except UsageError:
        return
    wanted = shapes(asdict(Baseline.load(file).victims["toy"].series[0]))
    for record in found.victims.values():
        for series in record.series:
            assert shapes({**asdict(series), "slowdown": []}) == wanted


def test_a_missing_file_names_those_there_are(file: Path) -> None:
    with pytest.raises(UsageError, match=r"no baseline .*v2\.json .*: there are v1$"):
        Baseline.load(path_of("v2", file.parent))
    with pytest.raises(UsageError, match=r"no baseline .*: save it first with --save$"):
        Baseline.load(file.parent / "empty" / "v1.json")


@pytest.mark.parametrize("name", ["../v1", "a/b", "", ".hidden", "a b"])
def test_a_name_is_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use letters, digits"):
        path_of(name, tmp_path)


def test_the_commit_is_none_outside_of_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() is None
