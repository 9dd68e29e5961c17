"""Files of generated inputs: read again in their own format, marked in every score, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import LinearSaver

from effattack.cli import main
from effattack.domains.tokens import PAD
from effattack.errors import UsageError
from effattack.inputs.generated import called, mark_of
from effattack.inputs.imitated_files import Vocabulary
from effattack.inputs.imitating import LEAST, imitate
from effattack.inputs.npz import open_npz
from effattack.inputs.series_files import read_csv, read_ts
from effattack.inputs.source import Source
from effattack.runs.sweep import Sweep

TS = "# by hand\n@problemName x\n@timeStamps false\n@classLabel true up down\n@data\n"


def npz(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "given.npz"
    np.savez(path, **arrays)
    return path


def some_images(count: int = 20) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    images = (draw.integers(0, 256, (count, 1, 4, 4)) / 255).astype(np.float32)
    return {"images": images, "labels": np.arange(count) % 2}


def of_csv(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    rows = [f"{i % 2},{','.join(map(str, draw.normal(size=5)))}" for i in range(20)]
    path = folder / "given.csv"
    path.write_text("\n".join(["label,a,b,c,d,e", *rows]))
    return path


def of_ts(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    series = draw.normal(size=(20, 2, 3)).round(3)
    lines = [":".join([*(",".join(map(str, c)) for c in s), "up"]) for s in series]
    path = folder / "given.ts"
    path.write_text(TS + "\n".join([*lines[:10], *(f"{line[:-2]}down" for line in lines[10:])]))
    return path


def of_text(folder: Path, said: Callable[[list[str]], dict]) -> Path:
    draw = np.random.default_rng(0)
    words = [[["book", "call", "rita"][w] for w in draw.integers(0, 3, 4)] for _ in range(20)]
    path = folder / "given.jsonl"
    lines = [json.dumps({"text": " ".join(row), **said(row)}) for row in words]
    path.write_text("\n".join(lines))
    return path


def test_arrays_come_in_the_same_arrays(tmp_path: Path) -> None:
    like = npz(tmp_path, **some_images())
    made = imitate(like, 30)
    assert made.out == tmp_path / "given_generated.npz"
    images, labels = open_npz(made.out)
    assert (images.shape, images.dtype) == ((30, 1, 4, 4), np.float32)
    assert {*labels} == {0, 1}
    assert mark_of(str(made.out)) == made.mark
    assert mark_of(str(like)) is None
    assert (called(str(made.out)), called(str(like))) == (f"{made.out} (generated)", str(like))


@pytest.mark.slow
def test_ids_come_padded_with_classes_or_tags(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 9, (20, 5))
    ids[::2, 3:] = PAD
    made = imitate(npz(tmp_path, inputs=ids, labels=np.arange(20) % 2), 12)
    found, labels = open_npz(made.out)
    assert found.shape[0] == len(labels) == 12
    assert ((found == PAD).cumsum(1).astype(bool) == (found == PAD)).all()
    made.out.unlink()
    tags = np.where(ids == PAD, PAD, ids % 3)
    found, labels = open_npz(imitate(npz(tmp_path, inputs=ids, labels=tags), 12).out)
    assert (labels == np.where(found == PAD, PAD, found % 3)).all()


@pytest.mark.slow
def test_series_come_in_text_files(tmp_path: Path) -> None:
    csv = imitate(of_csv(tmp_path), 15)
    series, labels = read_csv(csv.out)
    assert series.shape == (15, 1, 5)
    assert set(labels.tolist()) == {0, 1}
    assert mark_of(str(csv.out)) == csv.mark
    ts = imitate(of_ts(tmp_path), 15)
    series, labels = read_ts(ts.out)
    assert series.shape == (15, 2, 3)
    assert set(labels.tolist()) == {0, 1}
    assert mark_of(str(ts.out)) == ts.mark
    assert "@problemName x" in ts.out.read_text()


@pytest.mark.slow
def test_texts_come_with_their_class_or_their_tags(tmp_path: Path) -> None:
    made = imitate(of_text(tmp_path, lambda row: {"label": int(row[0] == "book")}), 15)
    lines = [json.loads(line) for line in made.out.read_text().splitlines()]
    assert all(line["generated"] for line in lines)
    assert {word for line in lines for word in line["text"].split()} <= {"book", "call", "rita"}
    assert mark_of(str(made.out)) == made.mark
    made.out.unlink()
    tags = {"book": 0, "call": 1, "rita": 2}
    made = imitate(of_text(tmp_path, lambda row: {"tags": [tags[word] for word in row]}), 15)
    for line in map(json.loads, made.out.read_text().splitlines()):
        assert line["tags"] == [tags[word] for word in line["text"].split()]


def test_images_come_by_class(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for number in range(12):
        (folder := tmp_path / "given" / ["cat", "dog"][number % 2]).mkdir(
            parents=True, exist_ok=True
        )
        levels = draw.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(levels).save(folder / f"{number}.png")
    made = imitate(tmp_path / "given", 10)
    data = Source(str(made.out), (3, 4, 4)).open()
    assert len(data) == 10
    assert data.remarks(2)[0] == f"generated: {made.mark}"
    assert sorted(path.name for path in made.out.iterdir() if path.is_dir()) == ["cat", "dog"]


@pytest.mark.slow
def test_every_score_on_them_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    like = npz(tmp_path, **some_images())
    assert main(["inputs", "--like", str(like), "--count", "12"]) == 0
    told = capsys.readouterr().out
    assert "distance to the nearest" in told
    out = tmp_path / "given_generated.npz"
    mark = f"generated: {mark_of(str(out))}"
    assert mark.removeprefix("generated: ") in told
    options = ["--victim", "toys:LinearSaver", "--data", str(out), "--attack", "Slowdown(steps=1)"]
    assert main(["run", *options, "--json", "--out", str(tmp_path / "report")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert f"toy: {mark}" in found["notes"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "given_generated.npz (generated)" in page
    assert "imitate the 20 of given.npz" in page
    assert main(["summary", str(tmp_path / "report")]) == 0
    assert "imitate the 20 of given" in capsys.readouterr().out
    assert main(["summary", "--card", str(tmp_path / "report")]) == 0
    assert "| Generated |" in capsys.readouterr().out


@pytest.mark.slow
def test_samples_of_generated_inputs_are_marked_in_a_sweep(tmp_path: Path) -> None:
    out = imitate(npz(tmp_path, **some_images()), 12).out
    sweep = Sweep(("toys:LinearSaver",), ("noise",), data=str(out), samples=4, timed=0)
    with pytest.warns(UserWarning, match="generated: 12 inputs imitate"):
        (plan,) = sweep.plan()
    assert any("toy: generated: 12 inputs" in note for note in plan.notes)


def test_too_few_are_refused_with_the_least_number(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    two = npz(tmp_path, **some_images(2))
    assert main(["inputs", "--like", str(two)]) == 2
    told = capsys.readouterr().err
    assert "holds 2 inputs, too few to imitate: give at least 10, and 4 of each class" in told
    rare = some_images()
    rare["labels"] = np.array([0] * 17 + [1] * 3)
    with pytest.raises(UsageError, match=r"3 inputs of class 1, .* at least 4 of each class"):
        imitate(npz(tmp_path, **rare), 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given.npz"]


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"labels": np.zeros((20, 3, 6))}, "neither classes nor tags"),
        ({"labels": np.zeros(20)}, "neither classes nor tags"),
        ({"labels": np.zeros(19, np.int64)}, "one label for each input"),
        ({"images": np.zeros((20, 1, 4, 4), np.uint8)}, "give finite floats, or ids"),
        ({"images": np.full((20, 1, 4, 4), np.nan)}, "give finite floats, or ids"),
    ],
)
def test_what_cannot_be_imitated_is_refused(tmp_path: Path, arrays: dict, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        imitate(npz(tmp_path, **{**some_images(), **arrays}), 20)


def test_tags_of_another_length_are_refused(tmp_path: Path) -> None:
    ids = np.ones((20, 5), np.int64)
    with pytest.raises(UsageError, match="neither classes nor tags"):
        imitate(npz(tmp_path, inputs=ids, labels=ids[:, :4]), 20)


def test_other_wrong_uses_are_refused(tmp_path: Path) -> None:
    like = npz(tmp_path, **some_images())
    for faulty, why in {
        (tmp_path / "a.bmp", 20, None): "give a folder of images by class, or a .npz, .csv",
        (tmp_path / "none.npz", 20, None): "it is no file",
        (like, LEAST - 1, None): "make at least 10",
        (like, 20, tmp_path / "a.csv"): "it is written as .npz",
        (like, 20, like): "is there already",
    }.items():
        path, count, out = faulty
        with pytest.raises(UsageError, match=why):
            imitate(path, count, out=out)
    answers = of_text(tmp_path, lambda row: {"answer": "yes"})
    with pytest.raises(UsageError, match="nobody knows what else is right"):
        imitate(answers, 20)


def test_words_and_back() -> None:
    vocabulary = Vocabulary()
    assert vocabulary.encode("a b  a c") == [0, 1, 0, 2]
    assert vocabulary.decode([2, 0]) == "c a"


def test_ordinary_data_bear_no_mark(tmp_path: Path) -> None:
    for name, text in {"a.csv": "# by hand\nlabel,a\n0,1\n", "a.ts": TS, "a.npz": "x"}.items():
        (tmp_path / name).write_text(text)
        assert mark_of(str(tmp_path / name)) is None
    assert mark_of("toys:LinearSaver") is None
    assert torch.equal(read_csv(tmp_path / "a.csv")[1], torch.tensor([0]))
    assert LinearSaver().name == "toy"
