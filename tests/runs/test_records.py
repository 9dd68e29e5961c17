"""Records: what is counted on them, and that nothing can be changed unseen."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import Drawn, batches, reproducible
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from toys import LinearSaver, grey_images, import_or_skip

from effattack.budgets import LEVELS
from effattack.cli import main
from effattack.errors import RecordError, UsageError
from effattack.inputs.changes import changed, changes, compressed, decompressed
from effattack.reporting.words import percent
from effattack.results.records.layout import KIND
from effattack.results.records.record import Record
from effattack.runs.records.bench import Bench
from effattack.runs.records.checking import expect_better, verify
from effattack.runs.records.making import attacked, recorded
from effattack.victim.digests import victim_digest, weights_digest
from effattack.victim.entry import Entry

COUNT = 12
SAVER, BASE = 32, 144
"""MACs of the toy: its saver, and what runs beside it where it doubts."""
quick = settings(reproducible, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def data() -> tuple[Tensor, Tensor]:
    """Grey images, as ``test_records:data``."""
    return grey_images(3 * COUNT), torch.arange(3 * COUNT) % 2


def other_data() -> tuple[Tensor, Tensor]:
    """The same but for one level of one pixel of the first image."""
    images, labels = data()
    images[0, 0, 0, 0] += 1 / LEVELS
    return images, labels


def victim() -> LinearSaver:
    toy = LinearSaver(doubt=2.0)
    toy.data = "test_records:data"
    return toy


def rebuilt() -> LinearSaver:
    """The same saver in other code, with a setting that decides nothing."""

    class Rewritten(LinearSaver):
        note = "kept for later"

    toy = Rewritten(doubt=2.0)
    toy.data = "test_records:data"
    return toy


def retrained() -> LinearSaver:
    """Other weights: another seed."""
    toy = LinearSaver(doubt=2.0, seed=5)
    toy.data = "test_records:data"
    return toy


def edgy() -> LinearSaver:
    """One whose threshold is what the first image makes of it."""
    toy = victim()
    logits = toy.saver(data()[0][:1].flatten(1))
    toy.doubt = (logits[0, 0] - logits[0, 1]).abs().item()
    return toy


@cache
def honest() -> Record:
    return attacked("test_records:victim", "Slowdown(steps=20)", "linf:8/255", COUNT)


@cache
def bench() -> Bench:
    return Bench("test_records:victim")


def resealed(record: Record, tmp_path: Path) -> Record:
    """As whoever changed it writes it, and as it is read."""
    return Record.load(record.save(tmp_path / "tampered.record"))


def test_it_holds_and_its_claims_are_those_of_a_closed_form() -> None:
    """The toy's MACs are 32, and 144 more where its saver's logits differ by less than 2."""
    record = honest()
    toy, (images, labels) = victim(), data()
    rows = torch.tensor(record.indices)
    assert record.indices == tuple(range(0, 3 * COUNT, 3))
    clean = toy.domain.pack(images[rows])
    moved = toy.domain.unpack(changed(record.changes, clean), images)
    assert ((moved - images[rows]).abs().flatten(1).amax(1) * LEVELS).round().max() == 8
    for column, batch in (("clean_macs", images[rows]), ("macs", moved)):
        logits = toy.saver(batch.flatten(1))
        opened = (logits[:, 0] - logits[:, 1]).abs() < toy.doubt
        assert record.claims[column] == (SAVER + BASE * opened.int()).tolist()
    assert record.claims["max_macs"] == [SAVER + BASE] * COUNT
    assert record.claims["label"] == labels[rows].tolist()
    done, before = sum(record.claims["macs"]), sum(record.claims["clean_macs"])
    success = (done - before) / (COUNT * (SAVER + BASE) - before)
    found = verify(record, bench())
    assert found.success == pytest.approx(success)
    assert found.savings.value == pytest.approx(1 - success)
    assert found.savings.low < 1 - success < found.savings.high
    assert not found.remarks


def test_it_holds_no_image(tmp_path: Path) -> None:
    """Only differences: equal to zero where nothing was changed."""
    images, _ = data()
    still = recorded(victim(), images[:2], threat="linf:8/255", attack="nobody", indices=[0, 1])
    assert all(set(row) == {0} for row in still.changes)
    assert len(honest().sealed()) < 6_000


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert resealed(honest(), tmp_path) == honest()
    assert resealed(honest(), tmp_path).sealed() == honest().sealed()


@quick
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_no_byte_can_be_changed_unseen(at: float, flip: int, tmp_path_factory: Any) -> None:
    data = bytearray(honest().sealed())
    data[int(at * len(data))] ^= flip
    file = tmp_path_factory.mktemp("changed") / "a.record"
    file.write_bytes(data)
    with pytest.raises((RecordError, UsageError)):
        Record.load(file)


@quick
@given(cut=st.floats(0, 1, exclude_max=True))
def test_no_file_is_read_in_part(cut: float, tmp_path_factory: Any) -> None:
    data = honest().sealed()
    file = tmp_path_factory.mktemp("cut") / "a.record"
    file.write_bytes(data[: int(cut * len(data))])
    with pytest.raises((RecordError, UsageError)):
        Record.load(file)


@quick
@given(row=st.integers(0, COUNT - 1), place=st.integers(0, 15), upwards=st.booleans())
def test_no_input_leaves_the_budget_by_one_level(row: int, place: int, upwards: bool) -> None:
    moved = [bytearray(each) for each in honest().changes]
    moved[row][place] = 9 if upwards else 256 - 9
    with pytest.raises(RecordError, match=r"outside the budget .*linf 0\.03529"):
        verify(replace(honest(), changes=tuple(map(bytes, moved))), bench())


@settings(quick, max_examples=15)
@given(
    column=st.sampled_from(sorted(set(honest().claims))),
    row=st.integers(0, COUNT - 1),
    step=st.sampled_from([-1, 1]),
)
def test_no_claim_can_be_changed_unseen(column: str, row: int, step: int) -> None:
    claims = {name: list(values) for name, values in honest().claims.items()}
    value = claims[column][row]
    claims[column][row] = (not value) if isinstance(value, bool) else value + step
    with pytest.raises(RecordError, match=f"1 of 12 images differ .*{column} {value}, claimed"):
        verify(replace(honest(), claims=claims), bench())


@pytest.mark.parametrize("field", ["family", "constant", "dense_macs", "currency"])
def test_no_fact_of_the_victim_can_be_changed_unseen(field: str) -> None:
    about = {**honest().about, field: "other"}
    with pytest.raises(RecordError, match=f"{field} is .*, claimed other"):
        verify(replace(honest(), about=about), bench())


def test_claims_beyond_what_is_counted_are_told_by_how_much() -> None:
    claims = {**honest().claims, "macs": [SAVER + BASE] * COUNT}
    shut = sum(macs == SAVER for macs in honest().claims["macs"])
    assert shut, "the toy keeps some savings"
    counted = f"attack success {honest().rows.success():.2%} is counted"
    words = rf"{counted}, attack success 100.00% claimed; {shut} of 12 images differ"
    with pytest.raises(RecordError, match=words):
        verify(replace(honest(), claims=claims), bench())


def test_other_clean_inputs_are_refused() -> None:
    with pytest.raises(RecordError, match=r"1 of 12 clean images are not those .*image 0 first"):
        verify(honest(), Bench("test_records:victim", data="test_records:other_data"))
    digests = (*honest().digests[:-1], "0123")
    with pytest.raises(RecordError, match="image 33 first"):
        verify(replace(honest(), digests=digests), Bench("test_records:victim"))
    beyond = replace(honest(), indices=(*honest().indices[:-1], 99))
    with pytest.raises(RecordError, match="names image 99, and test_records:data holds 36"):
        verify(beyond, bench())
    moved = replace(honest(), indices=(*honest().indices[:-1], 34))
    with pytest.raises(RecordError, match="image 34 first"):
        verify(moved, bench())


def test_weights_are_pinned_not_code() -> None:
    assert weights_digest(victim()) == weights_digest(rebuilt()) != weights_digest(retrained())
    assert victim_digest(victim()) != victim_digest(rebuilt())
    assert not verify(honest(), Bench("test_records:rebuilt")).remarks
    with pytest.raises(RecordError, match="is counted"):
        verify(honest(), Bench("test_records:retrained"))


def test_other_weights_that_count_the_same_are_told() -> None:
    (remark,) = verify(replace(honest(), weights="0123"), bench()).remarks
    assert remark.startswith("other weights here")


def test_an_input_within_rounding_of_a_threshold_may_differ() -> None:
    """Twenty images, of which the first lies on the threshold to the last bit."""
    images, _ = data()
    record = recorded(
        edgy(), images[:20], threat="linf:1/255", attack="nobody", indices=range(20),
        name="test_records:edgy",
    )  # fmt: skip
    claims = {name: list(values) for name, values in record.claims.items()}
    claims["macs"][0] = 2 * SAVER + BASE - claims["macs"][0]
    (remark,) = verify(replace(record, claims=claims), Bench("test_records:edgy")).remarks
    assert remark == "1 of 20 images differ, which lie within rounding of a threshold"
    claims["macs"][1] = 2 * SAVER + BASE - claims["macs"][1]
    with pytest.raises(RecordError, match="2 of 20 images differ"):
        verify(replace(record, claims=claims), Bench("test_records:edgy"))


@quick
@given(drawn=batches(), seed=st.integers(0, 2**31))
def test_changes_give_back_inputs_of_any_domain(drawn: Drawn, seed: int) -> None:
    """Also between inputs of two lengths."""
    rows = drawn.domain.pack(drawn.inputs)
    clean = [row[: seed % (len(row) + 9)] + b"\xff" * (seed % 5) for row in rows]
    told = changes(rows, clean)
    assert changed(told, clean) == rows
    assert decompressed(compressed(told), [len(row) for row in told]) == tuple(told)


def test_a_record_that_names_code_runs_none() -> None:
    with pytest.raises(UsageError, match="--victim test_records:victim; nothing runs because"):
        verify(honest(), Bench())
    with pytest.raises(UsageError, match="give --data os:abort"):
        verify(replace(honest(), data="os:abort"), bench())


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"PNG", "is no record"),
        (KIND + b" 2 abc", "is a record of format '2', and this effattack reads 1"),
    ],
)
def test_files_of_another_format(head: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "a.record"
    file.write_bytes(head + b"\nmore")
    with pytest.raises(UsageError, match=says):
        Record.load(file)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"claims": {}}, "its claims are not those of a record"),
        ({"indices": (0,)}, "digests are not one per input"),
        ({"indices": (-1, *range(11))}, "indices are no whole numbers"),
        ({"indices": (1, 1, *range(2, 12))}, "an input stands in it twice"),
        ({"victim": 3}, "victim is no str"),
        ({"knowledge": "all"}, "it lacks knowledge"),
        ({"threat": "nowhere.threats:Wide"}, "no package that is installed registers"),
        ({"threat": "image:nowhere.threats:Wide"}, "no package that is installed registers"),
        ({"about": {}}, "one of constant, currency"),
        ({"claims": {**honest().claims, "macs": ["x"] * 12}}, "macs holds a value"),
    ],
)
def test_sealed_nonsense_is_no_record(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        resealed(replace(honest(), **change), tmp_path)


def test_changes_that_unpack_to_more_than_they_tell_are_refused() -> None:
    with pytest.raises(ValueError, match="not the 4 bytes"):
        decompressed(compressed([bytes(10**6)]), [4])


def test_the_command_says_what_holds(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    good = honest().save(tmp_path / "good.record")
    moved = replace(honest(), changes=(b"\x7f" * 16, *honest().changes[1:]))
    bad = moved.save(tmp_path / "bad.record")
    options = ["--victim", "test_records:victim"]
    assert main(["verify", str(good), *options]) == 0
    assert main(["verify", str(good), str(bad), *options]) == 1
    assert main(["verify", str(good), str(bad), __file__, *options]) == 2
    assert main(["verify", str(good)]) == 2
    told = capsys.readouterr().out
    assert f"{good} holds: attack success {percent(honest().rows.success())} at" in told
    assert f"{bad} does not hold: images outside the budget" in told
    assert f"{__file__} is no record" in told
    assert "1 of 3 hold" in told


def test_a_better_record_takes_the_place_of_a_worse_one(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    images, _ = data()
    weak = recorded(
        victim(), images[list(honest().indices)], threat="linf:8/255", attack="nobody",
        indices=honest().indices, name="test_records:victim",
    )  # fmt: skip
    expect_better(honest(), weak)
    with pytest.raises(RecordError, match=r"no better than the other: 0\.00% against"):
        expect_better(weak, honest())
    with pytest.raises(RecordError, match="no better"):
        expect_better(honest(), honest())
    with pytest.raises(RecordError, match="threat differ"):
        expect_better(honest(), replace(weak, threat="linf:4/255"))
    new, old = honest().save(tmp_path / "new.record"), weak.save(tmp_path / "old.record")
    options = ["--victim", "test_records:victim", "--against"]
    assert main(["verify", str(new), *options, str(old)]) == 0
    assert main(["verify", str(old), *options, str(new)]) == 1
    told = capsys.readouterr().out
    assert f"{new} holds" in told
    assert f"the other's is {percent(0.0)}" in told
    assert f"{old} holds" in told
    assert "it is no better than the other: 0.00%" in told


def test_a_victim_behind_steps_of_its_own_is_loaded_with_them() -> None:
    record = attacked(
        "digits_cnn_early_exit", "Slowdown(steps=1)", "linf:8/255", 2, through="jpeg(50)"
    )
    own = Bench()
    assert verify(record, own).success == record.rows.success()
    assert isinstance(own.victim(record), Entry)
    assert not isinstance(own.victim(replace(record, through="")), Entry)


@pytest.mark.slow
def test_an_exported_file_is_verified_where_the_user_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import_or_skip("onnxruntime")
    import_or_skip("onnxscript")
    name, model = "digits_cnn_early_exit", str(tmp_path / "shipped.onnx")
    assert main(["export", name, "--onnx", model]) == 0
    record = attacked(model, "Slowdown(steps=1)", "linf:8/255", 2, twin=name)
    file = record.save(tmp_path / record.file_name)
    assert main(["verify", str(file)]) == 2
    assert f"--victim {model}" in capsys.readouterr().out
    assert main(["verify", str(file), "--victim", model]) == 0


def test_inputs_outside_the_threat_make_no_record() -> None:
    images, _ = data()
    with pytest.raises(UsageError, match="no record can hold them"):
        recorded(victim(), images[:1] * 0, threat="linf:8/255", attack="x", indices=[0])
