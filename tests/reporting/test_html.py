"""The HTML report: what it says, what it refuses to run, and what it does without."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import frames
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from effattack.reporting.html import render, write

HOSTILE = "<script>alert('x')</script>\" onload=\"alert(1)"


class Page(HTMLParser):
    """Tags, attributes and text of a document."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def samples() -> pd.DataFrame:
    return frames.samples(40)


@pytest.fixture(scope="module")
def scores(samples: pd.DataFrame) -> pd.DataFrame:
    return frames.scores(samples)


@pytest.fixture(scope="module")
def source(samples: pd.DataFrame, scores: pd.DataFrame) -> str:
    return render(samples, scores, frames.meta())


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_headline_names_the_victim_that_kept_least(page: Page, scores: pd.DataFrame) -> None:
    worst = scores.loc[scores[scores.kind == "union"].savings_retained.idxmin()]
    lead = f"{worst.victim} kept least: {worst.savings_retained:.0%} of its savings ("
    low, high = worst.savings_retained_low, worst.savings_retained_high
    lead += f"{low:.0%} to {high:.0%}, 95% interval over images)"
    assert f"{lead}. {worst.found_by}".replace("%", " %").replace(" % to", " to") in page.text


def test_every_score_is_in_the_table(page: Page, scores: pd.DataFrame) -> None:
    for row in scores.itertuples():
        for value in (row.accuracy, row.agreement, row.savings_retained, row.attack_success_dense):
            words = f"{100 * value:.1f} %".replace("-0.0 ", "0.0 ").replace("-", "−")
            assert words in page.text
        assert f"×{row.macs_ratio:.2f}" in page.text


def test_accuracy_and_agreement_are_told_apart(page: Page) -> None:
    assert "Accuracy against the label" in page.text
    assert "Agreement with the clean answer" in page.text
    assert "accuracy vs label" in page.text
    assert "agreement vs clean prediction" in page.text


def test_only_the_union_is_called_worst(page: Page, scores: pd.DataFrame) -> None:
    assert re.findall(r"(\S+) worst \d+/255", page.text) == ["union"] * 3
    stronger = scores.set_index(["victim", "attack"]).savings_retained
    assert stronger["digits_cnn_early_exit", "uniform"] < 0.2, "the control must tempt the verdict"


def test_constant_victim_has_nothing_to_take_back(page: Page) -> None:
    assert "Constant: its MACs cannot depend on the input" in page.text
    assert "Constant: every image costs 9.44 M MACs, clean or attacked." in page.text


def test_sections_of_the_story(page: Page) -> None:
    for words in (
        "the papers print the same number as “GFLOPs”",
        "no energy counter is reachable",
        "14 passed, 0 failed, 3 not applicable",
        "digits_vit_int8 has no gates",
        "DeepSloth needs internal classifiers",
        "effattack run --samples 100",
        "torch 2.15.0+cu132",
        "2026-11-22 08:12 UTC",
        "no verdict: A/A fired",
        "not significant on this device",
        "never counts for the verdict",
        "dense 9.44 M · max 9.61 M MACs per image",
        "difference × 15 around grey",
        "12 images were rounded to the 8-bit grid",
    ):
        assert words in page.text.replace("\u00a0", " "), words


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (["passed", "passed"], "Passed: 2 of 2 limits held"),
        (["passed", "failed"], "Failed: 1 of 2 limits held"),
        (["not measured"], "Failed: 0 of 1 limit held"),
        ([], ""),
    ],
)
def test_the_verdict_on_the_limits_stands_at_the_top(results: list[str], said: str) -> None:
    limit = {
        "victim": "digits_vit_ats",
        "limit": "accuracy at least 0.6",
        "message": "0.7 is right",
    }
    meta = {**frames.meta(), "limits": [{**limit, "result": result} for result in results]}
    rows = frames.samples(8)
    text = Page(render(rows, frames.scores(rows), meta)).text
    assert (said in text) if said else ("limits held" not in text)
    if said:
        assert text.index(said) < text.index("One row per victim"), "before the scores"
        assert text.count("0.7 is right") == len(results)


def test_jumps_lead_to_the_sections_in_their_order(page: Page) -> None:
    jumps = [str(tag["href"])[1:] for tag in page.all("a") if tag.get("class") != "skip"]
    ids = [tag["id"] for _, tag in page.tags if tag.get("id") in jumps]
    assert jumps == ids
    assert jumps.index("scores") < jumps.index("terms"), "scores come before the glossary"


def test_one_file_without_network_and_one_script(source: str, page: Page) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert not re.search(r"https?://", source)
    assert not re.search(r"@import|url\(", source)
    sources = [tag.get("src") or tag.get("href") or "data:" for _, tag in page.tags]
    assert all(address.startswith(("data:", "#")) for address in sources)
    policy = next(tag["content"] for tag in page.all("meta") if "http-equiv" in tag)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_accessible(page: Page) -> None:
    pictures = [tag for tag in page.all("svg") if tag.get("role") == "img"]
    assert len(pictures) > 10
    assert all(tag["aria-label"] for tag in pictures)
    assert all(tag["alt"] for tag in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    regions = [tag for tag in page.all("div") if tag.get("role") == "region"]
    assert len(regions) == len(page.all("table"))
    assert all(tag["tabindex"] == "0" for tag in regions)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_images_are_the_stored_pixels(page: Page, samples: pd.DataFrame) -> None:
    clean = samples[(samples.victim == "digits_vit_ats") & (samples.attack == "clean")].iloc[0]
    attacked = samples[(samples.victim == "digits_vit_ats") & (samples.attack == "Slowdown")].iloc[
        0
    ]
    shown = []
    for tag in page.all("img")[:3]:
        raw = base64.b64decode(str(tag["src"]).removeprefix("data:image/png;base64,"))
        shown.append(np.moveaxis(np.asarray(Image.open(io.BytesIO(raw))), -1, 0).astype(int))
    stored = [np.frombuffer(row.image, np.uint8).reshape(3, 32, 32) for row in (clean, attacked)]
    np.testing.assert_array_equal(shown[0], stored[0])
    np.testing.assert_array_equal(shown[1], stored[1])
    change = stored[1].astype(int) - stored[0]
    np.testing.assert_array_equal(shown[2], np.clip(128 + 15 * change, 0, 255))


def hostile() -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    rows, meta = frames.samples(12), frames.meta()
    rows["victim"] = rows["victim"].replace("digits_vit_ats", HOSTILE)
    rows["attack"] = rows["attack"].replace("Slowdown", HOSTILE)
    rows["family"] = HOSTILE
    rows["clock"] = HOSTILE
    meta["victims"][HOSTILE] = meta["victims"].pop("digits_vit_ats")
    meta["checks"][0] = {"victim": HOSTILE, "check": HOSTILE, "passed": False, "message": HOSTILE}
    meta["skipped"][0] = {"victim": HOSTILE, "attack": HOSTILE, "reason": HOSTILE}
    for key in ("command", "data", "energy", "created"):
        meta[key] = HOSTILE
    meta["versions"][HOSTILE] = HOSTILE
    meta["environment"][HOSTILE] = HOSTILE
    meta["notes"] = [HOSTILE]
    meta["latency"][HOSTILE] = {"aa_low": 1.0, "aa_high": 1.0, "fired": False}
    return rows, frames.scores(rows), meta


def test_hostile_names_are_shown_not_run() -> None:
    page = Page(render(*hostile()))
    assert page.all("script") == [{}]
    assert not any(key.startswith("on") for _, tag in page.tags for key in tag)
    assert page.text.count(HOSTILE) > 20


def test_no_control_character_reaches_the_page(samples: pd.DataFrame) -> None:
    rows = samples[samples.victim == "digits_vit_ats"].assign(victim="mine\x1b[31m")
    page = render(rows, frames.scores(rows), frames.meta())
    assert "\x1b" not in page
    assert r"mine\x1b[31m" in page


def test_unknown_max_is_judged_by_the_ratio(samples: pd.DataFrame) -> None:
    rows = samples[samples.victim == "digits_cnn_early_exit"].assign(max_macs=np.nan)
    scores = frames.scores(rows)
    page = Page(render(rows, scores, frames.meta()))
    worst = scores[scores.kind == "union"].macs_ratio.max()
    assert f"×{worst:.2f} MACs, attacked / clean" in page.text
    assert "Its max MACs are not known" in page.text
    assert "Savings retained · Interval · Attack success: its max MACs are not known" in page.text
    assert "nan" not in page.text.lower()


def test_errors_in_the_scores_come_first(samples: pd.DataFrame, scores: pd.DataFrame) -> None:
    meta = frames.meta()
    too_low = scores.assign(attack_success=scores.attack_success * 2)
    meta["checks"].append(
        {"victim": "digits_vit_ats", "check": "audit", "passed": False, "message": "off by 12"}
    )
    text = Page(render(samples, too_low, meta)).text
    assert "its max MACs are declared too low" in text
    assert "self-check failed: digits_vit_ats, audit: off by 12" in text
    assert text.index("off by 12") < text.index("Savings retained under")


def test_constant_victim_that_moved_is_an_error(
    scores: pd.DataFrame, samples: pd.DataFrame
) -> None:
    moved = scores.copy()
    moved.loc[(moved.victim == "digits_vit_int8") & (moved.attack == "noise"), "macs_ratio"] = 1.01
    text = Page(render(samples, moved, frames.meta())).text
    assert "the MACs moved although the victim is declared constant" in text


@pytest.mark.parametrize("key", sorted(frames.meta()))
def test_any_key_of_meta_may_be_missing(
    key: str, samples: pd.DataFrame, scores: pd.DataFrame
) -> None:
    meta = frames.meta()
    del meta[key]
    assert "kept least" in render(samples[samples["sample"] == 0], scores, meta)


def test_schema_alone_is_enough(samples: pd.DataFrame, scores: pd.DataFrame) -> None:
    text = Page(render(samples, scores, {"schema": 1})).text
    for words in ("not recorded", "No self-check was recorded", "no energy counter was read"):
        assert words in text


@pytest.mark.parametrize("columns", [True, False])
def test_nothing_scored(columns: bool, samples: pd.DataFrame, scores: pd.DataFrame) -> None:
    empty = (samples[:0], scores[:0]) if columns else (pd.DataFrame(), pd.DataFrame())
    meta = {"schema": 1, "victims": {"mine": {}}, "skipped": [{"victim": "mine", "reason": "why"}]}
    assert "Nothing was scored" in Page(render(*empty, {"schema": 1})).text
    assert "No attack ran inside a budget: why" in Page(render(*empty, meta)).text


def test_many_large_images_stay_small() -> None:
    shape = (3, 224, 224)
    rows = frames.samples(4)
    noise = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8).tobytes()
    rows["image"] = [noise] * len(rows)
    meta = frames.meta()
    for about in meta["victims"].values():
        about["input_shape"] = list(shape)
    source = render(rows, frames.scores(rows), meta)
    assert "1 pixel in 2 of each row shown" in source
    assert len(source) < 5_000_000


def test_frames_survive_parquet_and_write(
    samples: pd.DataFrame, scores: pd.DataFrame, source: str, tmp_path: Any
) -> None:
    samples.to_parquet(tmp_path / "samples.parquet")
    scores.to_parquet(tmp_path / "scores.parquet")
    again = [pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("samples", "scores")]
    path = write(*again, frames.meta(), tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == source


def test_needs_no_torch() -> None:
    code = "import sys, effattack.reporting.html, effattack.reporting.markdown as m; " + (
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
