"""The scoreboard: ranks, what papers claim, and folders that hold no scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import frames
import pandas as pd
import pytest
from test_html import HOSTILE, Page

from effattack.cli import main
from effattack.reporting.scoreboard import CLAIMS
from effattack.results.evaluation import Evaluation

ROOT = Path(__file__).parents[2]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder per victim, as published: scores and meta, without frames."""
    rows, meta = frames.samples(20, budgets=(4 / 255, 8 / 255)), frames.meta()
    rows["victim"] = rows["victim"].replace("digits_tinysaver_cascade", HOSTILE)
    for index, (_, own) in enumerate(rows.groupby("victim", sort=False)):
        about = {**meta, "victims": {}, "command": f"effattack run {index} {HOSTILE}"}
        folder = Evaluation(own, about).save(tmp_path / "reports" / str(index))
        (folder / "samples.parquet").unlink()
    claim = {
        "victims": ["digits_cnn_early_exit"],
        "attack": "DeepSloth",
        "eps": 0.0314,
        "score": "attack_success",
        "claimed": [0.9, 1.0],
        "on": "SDN",
        "source": HOSTILE,
    }
    (tmp_path / "reports" / CLAIMS).write_text(json.dumps([claim]))
    return tmp_path / "reports"


def board(folder: Path, *options: str) -> Page:
    assert main(["scoreboard", str(folder), *options]) == 0
    return Page((folder / "scoreboard.html").read_text())


def test_ranked_by_family_at_one_budget(published: Path) -> None:
    page = board(published)
    rows = pd.concat(pd.read_csv(file) for file in published.glob("*/scores.csv"))
    judged = rows[(rows.kind == "union") & (rows.eps > 0.03) & ~rows.constant]
    for _, own in judged.groupby("victim"):
        worst = own.loc[own.savings_retained.idxmin()]
        assert f"{100 * worst.savings_retained:.1f} %" in page.text
    families = [page.text.index(f" {name} ") for name in ("cascade", "early exit", "quantization")]
    assert families == sorted(families)
    assert "Constant" not in page.text
    assert "digits_vit_int8 constant 100.0 %" in page.text


def test_scores_of_earlier_versions_are_those_of_their_compute_attacks(published: Path) -> None:
    for file in published.glob("*/scores.csv"):
        rows = pd.read_csv(file)
        rows[rows.kind != "union"].drop(columns=["inside", "found_by"]).to_csv(file, index=False)
    judged = pd.read_csv(published / "1" / "scores.csv").query("kind == 'compute' and eps > 0.03")
    worst = judged.loc[judged.savings_retained.idxmin()]
    assert f"{100 * worst.savings_retained:.1f} %" in board(published).text


def test_another_budget_ranks_otherwise(published: Path) -> None:
    assert board(published).text != board(published, "--eps", "4/255").text


def test_claims_stand_beside_the_measurement(published: Path) -> None:
    rows = pd.read_csv(published / "1" / "scores.csv")
    sloth = rows[(rows.attack == "DeepSloth") & (rows.eps > 0.03)].iloc[0]
    measured = f"90 % to 100 % {100 * sloth.attack_success:.0f} % SDN"
    assert measured.replace("90 %", "90 %") in board(published).text


def test_cards_are_linked_from_the_page(published: Path, tmp_path: Path) -> None:
    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "digits_vit_ats.json").write_text("{}")
    page = board(published, "--cards", str(cards))
    links = [tag["href"] for tag in page.all("a") if not str(tag["href"]).startswith("#")]
    assert links == ["../cards/digits_vit_ats.json"]


def test_hostile_names_are_shown_not_run(published: Path) -> None:
    page = board(published)
    assert page.all("script") == [{}]
    assert page.text.count(HOSTILE) > 4


@pytest.mark.parametrize("damage", ["nothing", "old columns", "old schema", "no json"])
def test_bad_input(damage: str, published: Path, capsys: pytest.CaptureFixture) -> None:
    if damage == "nothing":
        shutil.rmtree(published)
    elif damage == "old columns":
        pd.read_csv(published / "0" / "scores.csv").drop(columns="kind").to_csv(
            published / "0" / "scores.csv"
        )
    else:
        text = {"old schema": '{"schema": 1}', "no json": "{"}[damage]
        (published / "0" / "meta.json").write_text(text)
    assert main(["scoreboard", str(published)]) == 2
    messages = {
        "nothing": "holds no published scores: effattack run",
        "old columns": "it lacks kind",
        "old schema": "schema 1, not 2",
        "no json": "cannot be read",
    }
    assert messages[damage] in capsys.readouterr().err


def test_the_published_scores_are_small_and_name_their_command() -> None:
    for meta in (ROOT / "reports").glob("*/meta.json"):
        made = json.loads(meta.read_text())["command"]
        assert made.startswith("effattack run ")
        assert made.endswith(f"--out reports/{meta.parent.name}")
        assert sum(file.stat().st_size for file in meta.parent.glob("[sm]*.[cj]s*")) < 200_000
