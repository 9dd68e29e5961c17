"""The table of scores: what each entry says, and one of a package outside."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from hand_made import samples

from effattack.errors import FactoryError, MeasurementError, UsageError
from effattack.reporting import words
from effattack.reporting.html import render
from effattack.reporting.nouns import INPUT
from effattack.reporting.tables import columns
from effattack.results import table
from effattack.results.limits import judge, parse_limit
from effattack.results.scores import score_table
from effattack.results.table import SCORES, known

MINE = """
from effattack import Score

doubled = Score("doubled", lambda rows: 2 * rows["macs"].sum() / rows["clean_macs"].sum(), "less")
broken = Score("broken", lambda rows: rows["nothing"], "less")
unknown = Score("unknown", lambda rows: float("nan"), "less")
taken = Score("accuracy_low", len)
no_score = 3
"""
ROWS = pd.concat([samples("Slowdown", [20.0] * 8, [60.0] * 8, linf=8 / 255)])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of scores, and the folder of an installed package that may name them."""
    (tmp_path / "my_scores.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(table, "_NAMED", {})
    table._installed.cache_clear()
    yield tmp_path
    sys.modules.pop("my_scores", None)
    table._installed.cache_clear()


def install(folder: Path, *entries: str) -> None:
    """As pip would leave it behind."""
    info = folder / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    lines = [f"{entry} = my_scores:{entry}" for entry in entries]
    (info / "entry_points.txt").write_text("\n".join(["[effattack.scores]", *lines, ""]))


def test_no_two_scores_share_a_column_and_all_are_shown_with_a_title() -> None:
    names = list(itertools.chain(table.IDENTITY, *(score.columns for score in SCORES)))
    assert len(set(names)) == len(names)
    full = score_table(ROWS).assign(
        currency="passes", **{s.name: 1.0 for s in SCORES if s.shown.sparse}
    )
    titles = [(column.group, column.title) for column in columns(INPUT, full)]
    assert len(set(titles)) == len(titles)


def test_a_score_of_an_installed_package_stands_everywhere(package: Path) -> None:
    """In the table, in limits of its side, and in the report."""
    install(package, "doubled")
    scores = score_table(ROWS)
    assert scores.doubled.tolist() == [6, 6]
    assert scores.columns[-1] == "doubled", "behind our own"
    (verdict,) = judge(scores, [parse_limit("doubled=5.9", fail_below=False)])
    assert not verdict.passed
    assert verdict.message.startswith("toy: doubled is 6.000, above the limit 5.9: Slowdown at eps")
    with pytest.raises(UsageError, match="use fail-above doubled=5"):
        parse_limit("doubled=5", fail_below=True)
    page = render(ROWS, scores, {"schema": 2})
    assert "Doubled" in page
    assert "6.00" in page


def test_a_score_is_named_by_its_path(package: Path) -> None:
    assert "doubled" not in score_table(ROWS)
    limit = parse_limit("my_scores:doubled=7", fail_below=False)
    assert limit.score == "doubled"
    assert judge(score_table(ROWS), [limit])[0].passed
    parse_limit("my_scores:doubled=8", fail_below=False)
    assert list(known()).count("doubled") == 1


def test_what_a_score_of_a_stranger_does_wrong_is_named(package: Path) -> None:
    with pytest.raises(UsageError, match="my_scores:no_score"):
        parse_limit("my_scores:no_score=1", fail_below=False)
    with pytest.raises(UsageError, match="cannot import 'nowhere'"):
        parse_limit("nowhere:score=1", fail_below=False)
    unknown = parse_limit("my_scores:unknown=1", fail_below=False)
    with pytest.raises(MeasurementError, match=r"could not measure unknown of toy \(it is NaN\)"):
        judge(score_table(ROWS), [unknown])
    parse_limit("my_scores:broken=1", fail_below=False)
    with pytest.raises(FactoryError, match="score broken raised KeyError: 'nothing': correct it"):
        score_table(ROWS)


def test_a_name_that_is_taken_is_refused(package: Path) -> None:
    install(package, "taken")
    with pytest.raises(UsageError, match="has a column 'accuracy_low' already"):
        score_table(ROWS)


def test_an_attacked_request_equals_so_many_clean_ones() -> None:
    scores = score_table(ROWS)
    assert scores.equals_n_requests.tolist() == [3, 3]
    (verdict,) = judge(scores, [parse_limit("equals_n_requests=2.5", fail_below=False)])
    assert not verdict.passed


def test_what_the_attacker_knows_is_told_of_every_row() -> None:
    clean, dear = [20.0] * 4, [60.0] * 4
    frames = [
        samples("noise", clean, [80.0, *clean[1:]], linf=8 / 255),
        samples("QueryAttack", clean, [20.0, 60.0, 20.0, 20.0], linf=8 / 255),
        samples("Slowdown", clean, clean, linf=8 / 255),
    ]
    told = score_table(pd.concat(frames)).set_index("attack").knowledge
    assert told.to_dict() == {
        "noise": "nothing",
        "QueryAttack": "queries",
        "Slowdown": "white box",
        "union": "queries",
    }
    own = samples("Slowdown", clean, dear, linf=8 / 255).assign(knowledge="transfer")
    assert score_table(own).knowledge.tolist() == ["transfer", "transfer"]


def test_scores_are_written_by_their_form() -> None:
    row = score_table(ROWS).iloc[0].to_dict()
    written = {score.name: words.score(score, row, 1.0) for score in SCORES if score.shown.group}
    assert (written["samples"], written["macs_ratio"], written["accuracy"]) == (
        "8",
        "×3.00",
        "100.0\u00a0%",
    )
    assert (written["energy_ratio"], written["knowledge"]) == (words.MISSING, "white box")
    row |= {"macs": math.nan}
    del row["knowledge"]
    assert {words.score(score, row) for score in SCORES if score.name in ("macs", "knowledge")} == {
        words.MISSING
    }


def test_limits_are_read_without_torch_or_pandas() -> None:
    code = (
        "import sys; from effattack.results.limits import parse_limit; "
        "parse_limit('savings_retained=.5', fail_below=True); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "pandas", "torch"} & set(done.stdout.split())
