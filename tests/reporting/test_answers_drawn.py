"""How answers in their places, sound, and the stages of a pipeline are drawn."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import answered_inputs as answered
import frames
import numpy as np
import other_inputs as others
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_html import Page

from effattack.reporting import boxes, matches, sound, stages, stored, warmth
from effattack.reporting.html import render
from effattack.reporting.nouns import domain_of
from effattack.reporting.shown import RICHER, kind_of

Made = Callable[[], tuple[Any, Any, dict[str, Any]]]


def drawings(source: str, label: str) -> list[ElementTree.Element]:
    """The drawings whose label begins so."""
    found = re.findall(rf'<svg [^>]*aria-label="{label}[^>]*>.*?</svg>', source, re.DOTALL)
    return [ElementTree.fromstring(one) for one in found]


def of_class(drawing: ElementTree.Element, css: str) -> list[ElementTree.Element]:
    return [one for one in drawing.iter() if css == one.get("class")]


def decoded(image: ElementTree.Element) -> np.ndarray:
    """(H, W, channels)."""
    raw = base64.b64decode(str(image.get("href")).removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(raw)))


def numbers(path: ElementTree.Element) -> np.ndarray:
    """(lines, 4) of a path of single lines."""
    return np.array(re.findall(r"-?[\d.]+", str(path.get("d"))), dtype=float).reshape(-1, 4)


def test_boxes_stand_where_the_victim_put_them() -> None:
    source = render(*answered.boxes())
    clean, attacked = (drawings(source, f"image 0, {name}") for name in ("clean", "attacked"))
    assert (len(clean), len(attacked)) == (1, 1)
    (frame,) = of_class(clean[0], "found")
    assert [frame.get(key) for key in ("x", "y", "width", "height")] == ["20", "40", "100", "160"]
    assert frame[0].text == "class 7, score 0.90"
    assert len(of_class(attacked[0], "found")) == len(of_class(attacked[0], "halo")) == 3
    assert "attacked: boxes 3, candidates 3, at most 3 in one place" in Page(source).text
    assert "label 1 (boxes), predicted 1 → 3 differs" in Page(source).text


def test_the_heat_of_both_images_is_on_one_scale() -> None:
    source = render(*answered.boxes())
    (clean,), (attacked,) = (drawings(source, f"image 0, {name}") for name in ("clean", "attacked"))
    faint, strong = boxes.OPACITY
    one = 255 * (faint + (strong - faint) * np.log(2) / np.log(4))
    found = decoded(of_class(clean, "crisp")[0])
    np.testing.assert_array_equal(found[:8, :8, 3], round(one))
    assert not found[8:, :, 3].any()
    assert not found[:, 8:, 3].any()
    found = decoded(of_class(attacked, "crisp")[0])
    assert found.shape == (32, 32, 4)
    assert (found[:8, :8] == (*warmth.ANCHORS[-1], 255 * strong)).all(), "three, the most of both"
    two = faint + (strong - faint) * np.log(3) / np.log(4)
    assert (found[8:16, :16, 3] == round(255 * two)).all()
    assert not found[16:, :, 3].any()


def test_what_frames_do_not_hold_is_said() -> None:
    rows, scores, meta = answered.boxes()
    rows["heat"] = None
    assert "clean: boxes 1, candidates not stored" in Page(render(rows, scores, meta)).text
    rows["prediction"] = "found nothing that is a box"
    text = Page(render(rows, scores, meta)).text
    assert "attacked: boxes not stored, candidates not stored" in text


@pytest.mark.parametrize("domain", [others.IMAGE, others.SERIES, others.TOKENS, others.PARTS])
def test_without_a_word_of_answers_inputs_are_shown_as_ever(domain: dict[str, Any]) -> None:
    """Earlier frames tell nothing of answers, and no kind of domain alone is drawn richer."""
    kind = kind_of(domain)
    assert kind is not None
    assert kind.show not in [richer.show for richer in RICHER]


def test_nothing_but_images_is_answered_in_boxes() -> None:
    assert not boxes.can({**others.SERIES, "answer": answered.BOXES})
    assert not matches.can({**others.PARTS, "answer": answered.MATCHES})
    assert matches.can({**answered.PAIR, "answer": answered.MATCHES})
    assert not sound.can({**answered.RECORDING, "shape": [2, None]})


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", 0),
        ("1 2 3 4 0.5 6", 1),
        ("1 2 3 4 0.5 6; 1e+03 2 3 4 1 6", 2),
        ("1 2 3", None),
        ("a b c d e f", None),
        (3, None),
        (None, None),
    ],
)
def test_members_of_an_answer(text: object, rows: int | None) -> None:
    found = stored.members(text, answered.BOXES)
    assert (found is None) if rows is None else (found is not None and found.shape == (rows, 6))
    assert stored.members(text, {"noun": "class"}) is None


def test_lines_join_the_ends_of_matches() -> None:
    source = render(*answered.matches())
    (clean,), (attacked,) = (drawings(source, f"{name}, input 0") for name in ("clean", "attacked"))
    scale = (matches.WIDTH - matches.GAP) / 64
    begin = 32 * scale + matches.GAP
    images = [one for one in clean.iter() if one.tag.endswith("image")]
    assert [float(str(one.get("x"))) for one in images] == [0, begin]
    (kept,), (lost,) = (of_class(clean, f"match {css}") for css in ("found", "lost"))
    expected = np.array([[1, 1, 2, 2], [30, 30, 29, 29], [5, 5, 20, 20]]) * scale
    expected[:, 2] += begin
    np.testing.assert_allclose(numbers(kept), expected[:1], atol=0.05)
    np.testing.assert_allclose(numbers(lost), expected[1:], atol=0.05)
    assert len(numbers(of_class(attacked, "match lost")[0])) == 1
    text = Page(source).text
    assert "clean: 3 matches, 2 of them lost when attacked" in text
    assert "attacked: 2 matches, 1 of them new when attacked" in text
    assert "first: difference" in text
    assert "second: difference" not in text, "nobody changed it"


ENDS = st.lists(st.tuples(*[st.integers(0, 6)] * 4), max_size=6)


@given(ENDS, ENDS, st.integers(0, 4))
def test_near_is_what_the_task_calls_alike(mine: Any, other: Any, within: int) -> None:
    one, two = (np.array([(*ends, 1) for ends in some]).reshape(-1, 5) for some in (mine, other))
    found = matches.near(one, two, within)
    for row, ends in zip(found, one, strict=True):
        ok = [
            np.linalg.norm(ends[:2] - there[:2]) <= within
            and np.linalg.norm(ends[2:4] - there[2:4]) <= within
            for there in two
        ]
        assert row == any(ok)


def test_a_tone_is_one_line_of_its_spectrogram() -> None:
    """Of amplitude 1, in the middle of a band: 0 dB there, and beyond its window nothing."""
    rate, window = 1600, 40
    steps = np.arange(rate)
    found = sound.spectrogram(np.sin(2 * np.pi * steps * 10 / window), rate)
    assert found.shape == (window // 2 + 1, sound.COLUMNS)
    np.testing.assert_allclose(found[10], 0, atol=1e-9)
    np.testing.assert_allclose(found[[9, 11]], 20 * np.log10(0.5), atol=1e-9)
    assert found[:8].max() < -100
    assert found[13:].max() < -100


def test_sound_that_is_shorter_than_a_window_is_seen() -> None:
    assert np.isfinite(sound.spectrogram(np.array([0.5]), 16_000)).all()


def test_recordings_stand_with_what_was_written() -> None:
    source = render(*answered.sound())
    both = [drawings(source, f"recording 0, {name}") for name in ("clean", "attacked")]
    assert [len(found) for found in both] == [1, 1]
    ratio = 20 * np.log10(0.5 / 0.05)
    text = Page(source).text
    assert f"attacked, {ratio:.1f} dB above the change, 0.50 s" in text
    assert "one word after another" in text
    assert "written, clean, 3 tokens, ended by itself" in text
    (picture,) = [one for one in both[0][0].iter() if one.tag.endswith("image")]
    loud = decoded(picture).astype(int).sum(2)
    bands = len(loud) - 1
    assert loud.mean(1).argmax() == bands - bands // 4, "an eighth of the rate, from below"
    wave = numbers_of(of_class(both[0][0], "wave")[0])
    middle, height = sound.TOP + sound.WAVE / 2, sound.WAVE / 4
    assert wave[:, 1].min() == pytest.approx(middle - height, abs=0.1)
    assert wave[:, 1].max() == pytest.approx(middle + height + 0.5, abs=0.1)


def numbers_of(path: ElementTree.Element) -> np.ndarray:
    """(corners, 2)."""
    return np.array(re.findall(r"[\d.]+", str(path.get("d"))), dtype=float).reshape(-1, 2)


def test_bars_are_as_long_as_the_work_of_their_stage() -> None:
    source = render(*answered.boxes())
    (bars,) = drawings(source, "MACs of each stage per image, mean")
    widths = [
        [float(str(bar.get("width"))) for bar in of_class(bars, f"bar stage{stage}")]
        for stage in range(2)
    ]
    expected = np.array([[30, 30], [10, 50]]) / 80 * stages.RIGHT
    np.testing.assert_allclose(widths, expected, atol=0.01)
    assert [rect.get("x") for rect in of_class(bars, "bar stage1")] == ["155.25", "155.25"]
    text = Page(source).text
    assert "finds 30 → 30, ×1.00" in text
    assert "looks 10 → 50, ×5.00" in text


def test_no_bars_where_nobody_tells_stages() -> None:
    rows, scores, meta = answered.boxes()
    rows["stage_macs"] = None
    assert not drawings(render(rows, scores, meta), "MACs of each stage")
    rows = rows.drop(columns=["stage_macs", "heat"])
    assert "MACs of each stage" not in render(rows, scores, meta)
    plain = frames.samples(8)
    assert "MACs of each stage" not in render(plain, frames.scores(plain), frames.meta())


def test_examples_show_what_they_paid_for_of_the_most_they_can() -> None:
    rows, scores, meta = answered.boxes()
    rows["max_macs"] = 160.0
    source = render(rows, scores, meta)
    bars = drawings(source, "MACs of each stage, example ")
    assert len(bars) == source.count('<li class="example">') > 1
    for drawing in bars:
        widths = [
            [float(str(bar.get("width"))) for bar in of_class(drawing, f"bar stage{stage}")]
            for stage in range(2)
        ]
        expected = np.array([[30, 30], [10, 50]]) / 160 * stages.RIGHT
        np.testing.assert_allclose(widths, expected, atol=0.01)
    text = Page(source).text
    assert "paid for: finds 30 → 30, looks 10 → 50" in text
    assert stages.HOW in text


def test_shares_of_who_paid_are_those_with_work_in_a_stage() -> None:
    """Of clean images, whose samples are even, nobody was looked at."""
    rows, scores, meta = answered.boxes()
    caption = "Share of images that paid for it"
    assert caption not in render(rows, scores, meta), "all pay for both"
    spared = (rows["attack"] == "clean") & (rows["sample"] % 2 == 0)
    rows.loc[spared, "stage_macs"] = json.dumps({"finds": 30.0, "looks": 0.0})
    (figure,) = drawings(render(rows, scores, meta), caption)
    label = str(figure.get("aria-label"))
    assert "finds: clean 100%, attacked 100%; looks: clean 50%, attacked 100%" in label


@pytest.mark.parametrize("name", sorted(answered.DRAWN))
def test_every_picture_says_what_it_shows(name: str) -> None:
    rows, scores, meta = answered.DRAWN[name]()
    page = Page(render(rows, scores, json.loads(json.dumps(meta))))
    assert all(tag["aria-label"] for tag in page.all("svg") if tag.get("role") == "img")
    assert all(str(tag["href"]).startswith("data:image/png") for tag in page.all("image"))
    assert page.all("image")


def test_brighter_is_more_in_grey_too() -> None:
    light = warmth.ANCHORS @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(light) > 20).all()
    ramp = warmth.colours(np.linspace(0, 1, 50)[None])
    assert (np.diff(np.tensordot((0.2126, 0.7152, 0.0722), ramp, 1)[0]) > 0).all()


def test_answers_are_told_beside_inputs() -> None:
    assert domain_of(answered.boxes()[2], "answerer")["answer"] == answered.BOXES
    assert domain_of({}, "any")["answer"] == {}
