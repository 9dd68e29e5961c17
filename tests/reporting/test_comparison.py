"""Several evaluations in one page."""

from __future__ import annotations

import re
from math import nan
from pathlib import Path

import frames
import pytest
from test_html import Page

from effattack.cli import main
from effattack.reporting.comparison import compared, difference
from effattack.reporting.html import render
from effattack.reporting.joining import joined
from effattack.reporting.verdict import Verdict, verdicts
from effattack.results.evaluation import Evaluation


@pytest.fixture
def two() -> dict[str, Evaluation]:
    """The early exit as it was, and one whose attacks got nowhere."""
    rows = frames.samples(30)
    before = rows[rows.victim == "digits_cnn_early_exit"].reset_index(drop=True)
    after = before.assign(macs=before.clean_macs)
    about = {key: frames.meta()[key] for key in ("schema", "command", "checks")}
    return {name: Evaluation(s, about) for name, s in (("before", before), ("after", after))}


def test_same_names_are_told_apart_and_compared(two: dict[str, Evaluation]) -> None:
    page = Page(render(*joined(two).report()))
    for words in (
        "Side by side",
        "digits_cnn_early_exit (before)",
        "digits_cnn_early_exit (after)",
        "the reference",
        "keeps more",
        "before: effattack run --samples 100",
    ):
        assert words in page.text, words
    few = Evaluation(two["after"].samples.query("sample < 20"), two["after"].meta)
    assert "20 to 30 images per victim" in render(*joined({**two, "after": few}).report())
    checks = joined(two).meta["checks"]
    assert {check["victim"] for check in checks} >= {"digits_cnn_early_exit (after)"}


def test_the_same_twice_is_inside_the_noise(two: dict[str, Evaluation]) -> None:
    again = {"before": two["before"], "again": two["before"]}
    _, scores, meta = joined(again).report()
    lines = compared([v for v in verdicts(scores, meta) if v.worst])
    assert [line.said for line in lines] == ["the reference", "inside the noise"]
    assert lines[1].change.startswith("+0.0 (−")


def test_savings_that_were_given_up_are_not_kept(two: dict[str, Evaluation]) -> None:
    dearer = two["after"].samples
    dearer = dearer.assign(clean_macs=1.5 * dearer.clean_macs, macs=1.5 * dearer.clean_macs)
    _, scores, meta = joined({**two, "after": Evaluation(dearer, two["after"].meta)}).report()
    assert compared(verdicts(scores, meta))[1].said == "keeps more; clean MACs ×1.50"


def verdict(savings: float, low: float, high: float) -> Verdict:
    row = {"savings_retained_low": low, "savings_retained_high": high}
    return Verdict("v", "early exit", False, row, None, savings)


def test_attacks_of_another_edition_grew(two: dict[str, Evaluation]) -> None:
    before, after = (
        Evaluation(one.samples, {**one.meta, "attacks": [f"AutoSlow(eps=4/255, {edition}seed=0)"]})
        for one, edition in zip(two.values(), ("", "edition=2, "), strict=True)
    )
    notes = joined({"v1": before, "v2": after}).meta["notes"]
    told = [note for note in notes if "the attack grew" in note]
    assert [note.partition(";")[0] for note in told] == [
        "v2: the attack grew: AutoSlow is of edition 2 here, of edition 1 in v1"
    ]


def test_nothing_found_and_one_input_are_told_as_such(two: dict[str, Evaluation]) -> None:
    after = two["after"]
    text = Page(render(*after.report())).text
    assert "Nothing cost more than clean, at ε = 8/255: its mean cost stayed at 0.73 M MACs" in text
    lone = Evaluation(after.samples[after.samples["sample"] == 0], after.meta)
    assert "1 image per victim" in Page(render(*lone.report())).text


def test_difference_joins_the_intervals() -> None:
    one, other = verdict(0.8, 0.77, 0.84), verdict(0.5, 0.46, 0.53)
    assert difference(one, other) == pytest.approx(
        (0.3, 0.3 - 0.3 * 2**0.5 / 10, 0.3 + 0.4 * 2**0.5 / 10)
    )
    assert compared([other, verdict(nan, nan, nan)])[1].said == "no interval"


def save(evaluation: Evaluation, folder: Path) -> Path:
    columns = ["opened", "decisions"]
    assert set(columns) <= set(evaluation.samples)
    return evaluation.save(folder)


def test_command(two: dict[str, Evaluation], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folders = [str(save(one, tmp_path / name)) for name, one in two.items()]
    out = tmp_path / "deep" / "page.html"
    assert main(["report", *folders, "--out", str(out), "--figures", "svg"]) == 0
    assert "keeps more" in out.read_text()
    assert (out.parent / "figures" / "comparison.svg").exists()
    assert main(["report", *folders]) == 2
    assert "name it with --out" in capsys.readouterr().err
    assert main(["report", folders[0], folders[0], "--out", str(out)]) == 2
    assert "the same folder is given twice" in capsys.readouterr().err


def test_summary_of_several(
    two: dict[str, Evaluation], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folders = [str(save(one, tmp_path / name)) for name, one in two.items()]
    assert main(["summary", *folders]) == 0
    text = capsys.readouterr().out
    header, _, first, second, *_ = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    )
    assert {len(header), len(first), len(second)} == {14}
    assert first[:1] + first[2:4] == ["`digits_cnn_early_exit (before)`", "–", "the reference"]
    assert second[:1] + second[3:4] == ["`digits_cnn_early_exit (after)`", "keeps more"]
    assert re.fullmatch(r"\+\d+\.\d \(\+\d+\.\d to \+\d+\.\d\)", second[2])
    assert "- before: effattack run --samples 100" in text
    assert main(["summary", folders[0], folders[0]]) == 2
    assert main(["summary", folders[0]]) == 0
    assert "the reference" not in capsys.readouterr().out


def test_bad_folders(
    two: dict[str, Evaluation], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    empty, other, lacking = tmp_path / "empty", tmp_path / "other", tmp_path / "lacking"
    empty.mkdir()
    save(two["before"], other)
    (other / "meta.json").write_text('{"schema": 99}')
    save(two["before"], lacking)
    two["before"].samples.drop(columns="opened").to_parquet(lacking / "samples.parquet")
    for folder, message in (
        (empty, "holds no readable evaluation"),
        (other, "was not written by this version"),
        (lacking, "lacks the columns opened"),
    ):
        assert main(["report", str(folder)]) == 2
        assert message in capsys.readouterr().err
