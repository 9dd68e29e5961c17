"""Sweeps: what a file may say, what is run, what is run again, and what is told of it."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from faulty import TOY, needs_ray
from PIL import Image
from toys import LinearSaver, grey_images

from effattack.cells.store import Store
from effattack.cli import main
from effattack.errors import UsageError
from effattack.results.evaluation import Evaluation
from effattack.runs.evaluate import evaluate
from effattack.runs.executors.ray import Ray
from effattack.runs.executors.workers import Workers
from effattack.runs.sweep import Sweep

SMALL = replace(TOY, samples=6, slice=3)
FILE = """# a small study
victims = ["toys:LinearSaver"]
attacks = ["Slowdown", "DeepSloth"]
budgets = ["4/255", 0.03137254901960784]
seeds = [0, 1]

data = "faulty:data"
samples = 6
slice = 3
timed = 0
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sweep.toml"
    path.write_text(FILE)
    return path


def test_a_file_says_what_the_call_says(file: Path) -> None:
    assert Sweep.load(file) == Sweep(
        victims=("toys:LinearSaver",),
        attacks=("Slowdown", "DeepSloth"),
        budgets=(4 / 255, 8 / 255),
        seeds=(0, 1),
        data="faulty:data",
        samples=6,
        slice=3,
        timed=0,
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("budgets", "bugdets", r"sweep.toml, line 4: unknown key 'bugdets': did you mean budgets"),
        ("timed = 0", "[timimg]", r"line 10: unknown key 'timimg': did you mean timed"),
        ("slice = 3", "slice = 'x'", r"line 9: slice = 'x': it must be a whole number"),
        ("slice = 3", "batch_size = 1.5", r"line 9: batch_size = 1.5: it must be a whole number"),
        ("slice = 3", "batch_size = 0", r"batch_size = 0 is out of range: give 1 or more"),
        ("slice = 3", "slice = true", r"line 9: slice = True: it must be a whole number"),
        ('["toys:LinearSaver"]', '"toys"', r"line 2: victims = 'toys': it must be a list of"),
        ('"4/255"', '"-2"', r"line 4: eps = -2.0 is no budget"),
        ('"4/255"', '"l2:x"', r"line 4: 'l2:x' is no threat|line 4: the size in"),
        ("seeds = [0, 1]", "seeds = [0, 1", r"is no TOML: .*line"),
        ("seeds = [0, 1]", "seeds = []", r"seeds is empty, and so is the matrix"),
        ("victims", "#", r"names no victims"),
        ("[0, 1]", "[1, 1]", r"seeds names 1 twice: two cells would have one identity"),
        ('"4/255"', '"8/255"', r"budgets names 0.0313\d* twice"),
        ('"Slowdown"', '"Slodown"', r"unknown attack 'Slodown': did you mean Slowdown"),
        ('"faulty:data"', '""', r"data is empty, as an unset variable leaves it: name one"),
        ('"toys:LinearSaver"', '""', r"victims is empty, as an unset variable"),
        ("timed = 0", 'device = ""', r"device is empty, as an unset variable"),
        ("seeds = [0, 1]", f"seeds = [{2**63}]", r"seed = 9\d+ is out of range"),
        ("seeds = [0, 1]", f"seeds = [{', '.join(map(str, range(200_000)))}]", r"for 1,400,001 c"),
    ],
)
def test_what_a_file_cannot_say(file: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    file.write_text(FILE.replace(old, new))
    with pytest.raises(UsageError, match=message):
        Sweep.load(file)


def test_a_file_is_read_as_utf_8_with_or_without_a_mark(file: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        file.write_text(FILE.replace("a small study", "étude №1"), encoding=encoding)
        assert Sweep.load(file).slice == 3


def test_a_pipe_is_no_sweep_file(file: Path) -> None:
    os.mkfifo("pipe.toml")
    for path in ("pipe.toml", os.devnull, "."):
        with pytest.raises(UsageError, match=r"is no file: give the path of one"):
            Sweep.load(path)


def test_too_many_cells_are_refused_before_they_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = 1 + 1 + 2  # clean; uniform; noise and Slowdown
    most = replace(SMALL, samples=60, slice=1)
    monkeypatch.setattr("effattack.runs.sweep.MOST", variants * 60 - 1)
    monkeypatch.setattr(Sweep, "__post_init__", lambda self: None)
    monkeypatch.setattr("effattack.runs.sweep.listed", pytest.fail)
    with pytest.raises(UsageError, match="asks for 240 cells, and 239 are the most"):
        most.plan()


def test_victims_are_named_never_written(file: Path) -> None:
    file.write_text(FILE.replace("toys:LinearSaver", "__import__('os').mkdir('proof')"))
    with pytest.raises(UsageError, match="unknown victim"):
        Sweep.load(file).plan()
    assert not Path("proof").exists()


def test_two_victims_of_one_name() -> None:
    with pytest.raises(UsageError, match="two victims are called 'toy'"):
        replace(SMALL, victims=("toys:LinearSaver", "faulty:Faulty")).plan()


def test_it_gives_the_rows_of_evaluate(tmp_path: Path) -> None:
    rows = SMALL.run(tmp_path).samples
    images, labels = grey_images(60), torch.arange(60) % 2
    chosen = torch.arange(0, 60, 10)
    direct = evaluate(LinearSaver(), images[chosen], labels[chosen], ["clean", "uniform"], timed=0)
    for attack in ("clean", "uniform"):
        swept = rows[rows.attack == attack]
        assert (
            swept.macs.tolist()[:3] == direct.samples.query("attack == @attack").macs.tolist()[:3]
        )
    assert set(rows.attack) == {"clean", "noise", "uniform", "Slowdown"}
    assert len(rows) == 4 * 6


def test_a_run_with_all_it_tells(file: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", str(file), "--dry-run"]) == 0
    told = capsys.readouterr().out
    cells = 1 + 2 * (1 + 2 * 2 + 2 + 2 * 2 * 2)  # contract; clean, noise, uniform, two attacks
    assert f"{cells} cells: 0 done, 0 running in other processes, {cells} to do" in told
    gradients = 2 * 2 * 6 * (50 + 30)
    assert f"about {gradients:,} gradient evaluations" in told
    assert not list(Path("effattack-report/cells").glob("*.parquet"))
    assert main(["run", str(file)]) == 0
    assert Path("effattack-report/report.html").exists()
    capsys.readouterr()
    assert main(["run", str(file), "--dry-run"]) == 0
    assert f"{cells} done, 0 running in other processes, 0 to do" in capsys.readouterr().out
    assert main(["run", str(file), "--eps", "4/255"]) == 2
    assert "write them into the file" in capsys.readouterr().err.replace("\n", " ")


def test_only_what_changed_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from effattack.runs.scheduling import overview

    SMALL.run(tmp_path)
    store = Store(tmp_path / "cells")
    _, lines = overview(replace(SMALL, seeds=(0, 1)).plan(), store)
    assert "15 cells: 9 done" in lines[0]
    assert len(lines) == 2
    monkeypatch.setattr("faulty.grey_images", lambda count: grey_images(count, seed=3))
    _, lines = overview(SMALL.plan(), store)
    assert "9 cells: 0 done" in lines[0]
    assert sum(int(line.split()[2]) for line in lines[2:]) == 9
    assert all("the data changed" in line for line in lines[2:])


def test_verify_runs_just_what_is_damaged(file: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", str(file)]) == 0
    before = pd.read_parquet("effattack-report/samples.parquet")
    files = sorted(Path("effattack-report/cells").glob("*.parquet"))
    times = {path: path.stat().st_mtime_ns for path in files}
    files[0].write_bytes(files[0].read_bytes()[:100])
    flipped = bytearray(files[1].read_bytes())
    flipped[50] ^= 1
    files[1].write_bytes(flipped)
    assert main(["run", str(file)]) == 2
    assert "--verify runs what is damaged again" in capsys.readouterr().err.replace("\n", " ")
    assert main(["run", str(file), "--verify"]) == 0
    told = capsys.readouterr().out
    assert told.count("damaged, to be run again") == 2
    assert all(path.stat().st_mtime_ns == times[path] for path in files[2:])
    pd.testing.assert_frame_equal(pd.read_parquet("effattack-report/samples.parquet"), before)


@pytest.mark.slow
def test_fresh_runs_all_again(file: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", str(file)]) == 0
    files = sorted(Path("effattack-report/cells").glob("*.parquet"))
    times = {path: path.stat().st_mtime_ns for path in files}
    assert main(["run", str(file), "--fresh", "--dry-run"]) == 0
    assert sorted(Path("effattack-report/cells").glob("*.parquet")) == files
    assert main(["run", str(file), "--fresh"]) == 0
    assert all(path.stat().st_mtime_ns > times[path] for path in files)


def test_unreadable_images_are_named_or_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, image in enumerate(grey_images(6)):
        path = tmp_path / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(path)
    for name in ("a/2.png", "b/3.png"):
        (tmp_path / "images" / name).write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    sweep = replace(SMALL, data="images", samples=None)
    with pytest.raises(UsageError, match=r"a/2.png, .*b/3.png as an image: .*--skip-bad"):
        sweep.plan()
    (tmp_path / "images" / ".git").mkdir()
    with pytest.warns(UserWarning, match="passed over"):
        found = replace(sweep, skip_bad=True).run("out")
    assert len(found.samples) == 4 * 4
    assert "toy: 1 hidden or foreign folder was passed over: .git" in found.meta["notes"]
    assert "toy: 2 unreadable images were passed over: a/2.png, b/3.png" in found.meta["notes"]


def test_timings_name_node_and_device(tmp_path: Path) -> None:
    found = replace(SMALL, attacks=("noise",), timed=2).run(tmp_path)
    timed = found.samples.dropna(subset=["seconds"])
    assert (timed.groupby("attack").size() == 2).all()
    assert timed.node.notna().all()
    assert timed.device.notna().all()
    assert isinstance(found, Evaluation)


@needs_ray
def test_ray_that_cannot_be_reached(
    capsys: pytest.CaptureFixture, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effattack.runs.executors.cluster.REACH", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert main(["run", str(file), "--ray", address]) == 2
    told = capsys.readouterr().err.replace("\n", " ")
    assert f"no Ray cluster answers at {address} (timed out)" in told
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=speak_of_something_else, args=(other,)).start()
        assert main(["run", str(file), "--ray", f"127.0.0.1:{other.getsockname()[1]}"]) == 2
    assert "(what answers is no gRPC)" in capsys.readouterr().err.replace("\n", " ")
    assert main(["run", str(file), "--ray", "127.0.0.1:9"]) == 2
    assert "no Ray cluster answers at 127.0.0.1:9" in capsys.readouterr().err.replace("\n", " ")
    for nonsense in ("nonsense", "ray://127.0.0.1:9", "127.0.0.1:port"):
        assert main(["run", str(file), "--ray", nonsense]) == 2
        assert "write HOST:PORT" in capsys.readouterr().err


def speak_of_something_else(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@needs_ray
def test_timing_is_never_on_a_share_of_a_gpu() -> None:
    executor = Ray(gpus=0.5)
    executor.check("cpu", timed=True)
    with pytest.raises(UsageError, match=r"gpus = 0.5 would share a GPU, and timing owns"):
        executor.check("cuda", timed=True)


@needs_ray
@pytest.mark.slow
def test_rows_are_the_same_wherever_cells_run(tmp_path: Path) -> None:
    sweep = Sweep(("digits_cnn_early_exit",), ("Slowdown(steps=3)",), samples=6, slice=3, timed=2)
    here = sweep.run(tmp_path / "here").samples
    measured = [*sorted(c for c in here if "seconds" in c), "clock", "environment"]
    for executor in (Workers(2), Ray(cores=2)):
        out = tmp_path / type(executor).__name__
        found = sweep.run(out, executor).samples
        pd.testing.assert_frame_equal(
            found.drop(columns=measured), here.drop(columns=measured), check_exact=True
        )
        assert found[measured].notna().equals(here[measured].notna())
        assert len({entry["pid"] for entry in Store(out / "cells").journal} - {os.getpid()}) >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray", "--timeout", "0"], "timeout = 0: it must be positive"),
        (["--workers", "2", "--ray"], "give one of them"),
        (["--timeout", "3"], "add --workers 1"),
        (["--gpus", "1"], "is for --ray"),
        (["--workers", "-1"], "must be positive"),
    ],
)
def test_places_that_cannot_be(
    options: list[str], message: str, file: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["run", str(file), *options]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
