"""The scoreboard: ranks, what papers claim, and folders that hold no records."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_html import HOSTILE, Page

from effattack.cli import main
from effattack.reporting.scoreboard import CLAIMED, CLAIMS, RECORDS, render
from effattack.reporting.words import percent
from effattack.results.records.record import Record, file_name

ROOT = Path(__file__).parents[2]
CLEAN, MOST = 40, 100
"""MACs of every clean input, and at the most."""


def record(victim: str, attacked: list[int], threat: str = "linf:8/255", **about: Any) -> Record:
    """A record whose attack success is known: Σ (attacked − 40) / (60 · inputs)."""
    count = len(attacked)
    return Record(
        victim=victim,
        twin="",
        through="",
        weights="0",
        about={
            "name": victim,
            "family": "cascade",
            "dense_macs": 80,
            "constant": False,
            "currency": "macs",
            "domain": {"kind": "pixels", "noun": "image", "nouns": "images"},
            **about,
        },
        threat=threat,
        attack="DeepSloth",
        knowledge="white box",
        data="package:data",
        indices=tuple(range(count)),
        digests=tuple(map(str, range(count))),
        claims={
            "label": [0] * count,
            "prediction": [0] * count,
            "clean_prediction": [0] * count,
            "right": [True] * count,
            "clean_right": [True] * count,
            "same": [True] * count,
            "macs": attacked,
            "clean_macs": [CLEAN] * count,
            "max_macs": [MOST] * count,
        },
        made={},
        changes=(b"",) * count,
    )


SERIES = {"kind": "series", "noun": "series", "nouns": "series"}
PUBLISHED = (
    record("weak", [MOST] * 9 + [CLEAN]),
    record("strong", [CLEAN] * 9 + [MOST]),
    record("strong", [CLEAN] * 10, "linf:4/255"),
    replace(record(HOSTILE, [70] * 10, family="early exit"), made={"by": HOSTILE}),
    record("of series", [46] * 10, "linf:.2sd", domain=SERIES),
)


def plain(share: float, digits: int = 1) -> str:
    """A percentage as :class:`Page` reads it, without hard spaces."""
    return percent(share, digits).replace("\u00a0", " ")


def saved(found: Record, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return found.save(folder / file_name(found.victim, found.threat))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Records, and a claim of a paper beside one."""
    folder = tmp_path / "reports"
    for each in PUBLISHED:
        saved(each, folder / RECORDS)
    saved(record("weak", [MOST] * 5 + [CLEAN] * 5), folder / CLAIMED)
    claim = {
        "victims": ["weak"],
        "attack": "DeepSloth",
        "eps": 0.0314,
        "score": "attack_success",
        "claimed": [0.9, 1.0],
        "on": "SDN",
        "source": HOSTILE,
    }
    (folder / CLAIMS).write_text(json.dumps([claim]))
    return folder


def board(folder: Path, *options: str) -> Page:
    assert main(["scoreboard", str(folder), *options]) == 0
    return Page((folder / "scoreboard.html").read_text())


def test_ranked_by_family_in_every_budget(published: Path) -> None:
    text = board(published).text
    budgets = ("Images at ε = 8/255", "Images at ε = 4/255", "Series at ε = 0.2sd")
    places = [text.index(budget) for budget in budgets]
    assert places == sorted(places)
    largest = text[places[0] : places[1]]
    order = [largest.index(name) for name in ("cascade", "strong", "weak", "early exit")]
    assert order == sorted(order)


def test_attack_success_is_that_of_the_record(published: Path) -> None:
    """Of 10 inputs with 60 MACs to take back each: 9 fully, 1 fully, none, half, a tenth."""
    text = board(published).text
    for name, budget, success in (
        ("weak", "8/255", 0.9),
        ("strong", "8/255", 0.1),
        ("strong", "4/255", 0.0),
        ("of series", "0.2sd", 0.1),
    ):
        own = text[text.index(f"at ε = {budget}") :]
        row = re.search(rf"\b{name} (\S+ %) .*? (\S+ %) DeepSloth", own)
        assert row is not None
        assert row.groups() == (plain(1 - success), plain(success))


def test_claims_stand_beside_the_record_of_the_same_attack(published: Path) -> None:
    assert f"{plain(0.9, 0)} to {plain(1, 0)} {plain(0.5, 0)} SDN" in board(published).text


def test_cards_and_records_are_linked_from_the_page(published: Path, tmp_path: Path) -> None:
    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "weak.json").write_text("{}")
    page = board(published, "--cards", str(cards))
    links = {str(tag["href"]) for tag in page.all("a") if not str(tag["href"]).startswith("#")}
    assert links == {
        "../cards/weak.json",
        *(f"records/{file.name}" for file in (published / RECORDS).iterdir()),
    }


def test_hostile_names_are_shown_not_run(published: Path) -> None:
    page = board(published)
    assert page.all("script") == [{}]
    assert page.text.count(HOSTILE) == 3


@pytest.mark.parametrize("damage", ["nothing", "twice", "changed", "no record", "impossible"])
def test_bad_input(damage: str, published: Path, capsys: pytest.CaptureFixture) -> None:
    first = saved(PUBLISHED[0], published / RECORDS)
    if damage == "nothing":
        for file in (published / RECORDS).iterdir():
            file.unlink()
    elif damage == "twice":
        PUBLISHED[0].save(first.with_name("again.record"))
    elif damage == "changed":
        first.write_bytes(first.read_bytes() + b" ")
    elif damage == "no record":
        first.write_text("{}")
    else:
        claims = {**PUBLISHED[0].claims, "macs": [MOST + 1] * 10}
        replace(PUBLISHED[0], claims=claims).save(first)
    assert main(["scoreboard", str(published)]) == (1 if damage == "changed" else 2)
    messages = {
        "nothing": "holds no records: benchmarks/records.py makes them",
        "twice": "are of one victim and threat: keep the better one",
        "changed": "was changed since it was sealed",
        "no record": "is no record",
        "impossible": "above the declared max",
    }
    assert messages[damage] in capsys.readouterr().err


@pytest.mark.slow
def test_the_published_page_is_made_from_the_records_beside_it() -> None:
    """And they are at least 40, of 50 inputs each, in 8 MB."""
    files = sorted((ROOT / "reports" / RECORDS).iterdir())
    records = [Record.load(file) for file in files]
    assert len(records) >= 40
    assert min(len(each.indices) for each in records) >= 50
    assert sum(file.stat().st_size for file in files) < 8e6
    assert [file.name for file in files] == [each.file_name for each in records]
    page, cards = ROOT / "reports" / "scoreboard.html", ROOT / "models_zoo" / "cards"
    document, count = render(ROOT / "reports", cards, page)
    assert count == len(records)
    made, stored = Page(document), Page(page.read_text(encoding="utf-8"))
    assert made.text == stored.text
    assert made.all("a") == stored.all("a")
