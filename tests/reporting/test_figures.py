"""Figures beyond the distribution: security curves, gates, kept tokens, and files of their own."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import frames
import numpy as np
import pandas as pd
import pytest

from effattack.errors import UsageError
from effattack.reporting import exporting
from effattack.reporting.charts import figures
from effattack.reporting.maps import FADE, token_map
from effattack.reporting.verdict import verdicts

LADDER = (2 / 255, 4 / 255, 8 / 255)


@pytest.fixture(scope="module")
def ladder() -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    rows = frames.samples(20, budgets=LADDER)
    return rows, frames.scores(rows), frames.meta()


def drawn(report: tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]], victim: str) -> dict[str, Any]:
    rows, scores, meta = report
    (verdict,) = [one for one in verdicts(scores, meta) if one.victim == victim]
    return {figure.slug: figure for figure in figures(rows, scores, verdict).figures}


def test_security_curves_need_a_ladder_of_budgets(ladder: Any) -> None:
    found = drawn(ladder, "digits_vit_ats")
    assert {"security_macs", "security_accuracy"} <= set(found)
    for budget in ("2/255", "4/255", "8/255"):
        assert f"Slowdown {budget}: " in found["security_macs"].drawing.label
    one = frames.samples(20)
    assert "security_macs" not in drawn((one, frames.scores(one), ladder[2]), "digits_vit_ats")


def test_each_threat_has_curves_of_its_own(tmp_path: Path) -> None:
    rows = frames.samples(8, budgets=LADDER)
    rows = rows[rows.victim == "digits_vit_ats"]
    square = rows[rows.attack.isin(["Slowdown", "noise"])].assign(threat="patch@4,4")
    rows = pd.concat([rows, square.assign(eps=square.eps * 510)], ignore_index=True)
    scores = frames.scores(rows)
    found = drawn((rows, scores, frames.meta()), "digits_vit_ats")
    label = found["security_macs_patch@4,4"].drawing.label
    assert "; Slowdown patch@4,4 16 px: " in label
    assert "DeSparsify" not in label
    assert "noise" in {key.css for key in found["security_macs_patch@4,4"].legend}
    for slug in ("macs", "accuracy_cost"):
        for key in found[slug].legend:
            assert f"{key.name} {key.detail}".count("patch") <= 1, "the threat is named once"
    assert "patch@4,4" not in found["security_macs"].drawing.label
    paths = exporting.write(rows, scores, frames.meta(), tmp_path, "svg")
    assert "digits_vit_ats_security_macs_patch_4_4.svg" in {path.name for path in paths}


def test_controls_can_be_told_apart(ladder: Any) -> None:
    legend = drawn(ladder, "digits_vit_ats")["accuracy_cost"].legend
    css = {key.name: key.css for key in legend}
    assert css["noise"] != css["uniform"]


def test_bars_show_one_budget_per_attack(ladder: Any) -> None:
    label = drawn(ladder, "digits_cnn_early_exit")["attacks"].drawing.label
    assert label.count("Slowdown") == 1


def test_where_images_stopped(ladder: Any) -> None:
    rows, _, _ = ladder
    stops = drawn(ladder, "digits_cnn_early_exit")["stops"].drawing.label
    clean = rows[(rows.victim == "digits_cnn_early_exit") & (rows.attack == "clean")]
    first = (clean.macs == clean.macs.min()).mean()
    assert f"stopped at exits.0: clean {first:.0%}" in stops
    assert "ran to the end: clean 0%" in stops


def test_long_names_of_gates_leave_room_for_the_bars(ladder: Any) -> None:
    rows, scores, meta = ladder
    rows = rows.copy()
    for at in rows.index[rows["decisions"].notna()]:
        told = json.loads(rows.at[at, "decisions"])
        long = {f"vibration.{gate}": units for gate, units in told.items()}
        rows.at[at, "decisions"] = json.dumps(long)
    label = drawn((rows, scores, meta), "digits_cnn_early_exit")["stops"].drawing.label
    assert "; vibration.exits.1: clean" in label
    assert "stopped at" not in label


def test_share_of_tokens_kept(ladder: Any) -> None:
    rows, _, _ = ladder
    gates = drawn(ladder, "digits_vit_ats")["gates"].drawing.label
    clean = rows[(rows.victim == "digits_vit_ats") & (rows.attack == "clean")]
    kept = np.mean([counts[0] for counts in clean.opened]) / 16
    assert f"blocks.1.tokens: clean {kept:.0%}" in gates


def test_a_constant_victim_has_no_gates(ladder: Any) -> None:
    assert set(drawn(ladder, "digits_vit_int8")) == {"attacks"}


def test_token_map_fades_what_was_dropped() -> None:
    image = np.full((1, 8, 8), 255, dtype=np.uint8)
    found = token_map(image, json.dumps({"a.tokens": "1100", "b.tokens": "1000", "exits.0": "1"}))
    assert found is not None
    assert found.words == "tokens kept: a.tokens 2 of 4, b.tokens 1 of 4"
    assert (found.pixels[:, :4, :4] == 255).all(), "always kept"
    dropped = 0.1 * 255 + 0.9 * FADE
    np.testing.assert_array_equal(found.pixels[:, 7, 0], dropped.round())
    half = 0.55 * 255 + 0.45 * FADE
    np.testing.assert_array_equal(found.pixels[:, 0, 7], half.round())


@pytest.mark.parametrize("decisions", [None, "{}", '{"exits.0": "1"}', '{"a.tokens": "101"}'])
def test_no_map_without_a_grid(decisions: str | None) -> None:
    assert token_map(np.zeros((3, 8, 8), dtype=np.uint8), decisions) is None


def test_svg_files_stand_alone(ladder: Any, tmp_path: Path) -> None:
    rows, scores, meta = ladder
    paths = exporting.write(rows, scores, meta | {"compared": ["a", "b"]}, tmp_path / "new", "svg")
    names = {path.name for path in paths}
    assert {"digits_vit_ats_macs.svg", "digits_cnn_early_exit_stops.svg", "comparison.svg"} <= names
    for path in paths:
        text = path.read_text()
        title = ElementTree.fromstring(text).findtext("{http://www.w3.org/2000/svg}title")
        assert title
        assert "digits_" in title
        assert "var(" not in text


def test_hostile_names_make_plain_files(tmp_path: Path) -> None:
    rows, meta = frames.samples(12), frames.meta()
    names = {"digits_vit_ats": "../../<script>", "digits_cnn_early_exit": ".._.._script_"}
    rows["victim"] = rows["victim"].replace(names)
    paths = exporting.write(rows, frames.scores(rows), meta, tmp_path, "svg")
    assert {path.parent for path in paths} == {tmp_path}
    assert len(set(paths)) == len(paths)
    assert "<script>" not in "".join(path.read_text() for path in paths)


def test_pdf(ladder: Any, tmp_path: Path) -> None:
    pytest.importorskip("cairosvg", reason="the extra [pdf] is not installed", exc_type=Exception)
    rows, scores, meta = ladder
    own = scores[scores.victim == "digits_vit_ats"]
    paths = exporting.write(rows, own, {**meta, "victims": {}}, tmp_path, "pdf")
    assert all(path.read_bytes().startswith(b"%PDF") for path in paths)
    assert all(path.stat().st_size > 4000 for path in paths), "more than an empty page"


def test_pdf_without_the_extra(
    ladder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "cairosvg":
            raise ImportError("No module named 'cairosvg'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"\.\[pdf\]"):
        exporting.write(*ladder, tmp_path, "pdf")
