"""The table of real systems in README is the one that the kept rows make."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from effattack.errors import UsageError

ROOT = Path(__file__).parents[1]
REAL = ROOT / "reports" / "real"


@pytest.fixture
def readme_table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its own folder is on the path when it runs."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import readme_table

    return readme_table


def rows(file: Path, **equal: Any) -> list[dict[str, Any]]:
    """Those with these values."""
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row for row in found if all(row[name] == value for name, value in equal.items())]


def test_readme_shows_what_the_command_makes(readme_table: ModuleType, tmp_path: Path) -> None:
    readme, page = (ROOT / "README.md").read_text(encoding="utf-8"), tmp_path / "README.md"
    head = readme_table.HEAD
    page.write_text(readme.replace(head, f"{head} stale |", 1), encoding="utf-8")
    readme_table.put(page)
    assert page.read_text(encoding="utf-8") == readme


def test_a_page_without_the_table_is_refused(readme_table: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "other.md"
    page.write_text("# Nothing here\n", encoding="utf-8")
    with pytest.raises(UsageError, match="has 0 lines that begin with"):
        readme_table.put(page)


def test_one_request_equals_so_many_clean_ones(readme_table: ModuleType) -> None:
    mtcnn = rows(REAL / "mtcnn.jsonl", attack="house")
    ats = rows(REAL / "ats.jsonl", inputs="UniversalSlowdown")
    ratios = {
        "mtcnn": [row["ratio"] for row in mtcnn],
        "lightglue": over(
            rows(REAL / "lightglue.jsonl", inputs="attacked"),
            rows(REAL / "lightglue.jsonl", inputs="clean"),
            ("photograph", "macs"),
        ),
        "ats": [row["macs"] / row["clean_macs"] for row in ats],
        "whisper": over(
            rows(REAL / "whisper.jsonl", attack="Slowdown(steps=25)", eps=0.002),
            rows(REAL / "whisper.jsonl", attack="clean"),
            ("sentence", "passes"),
        ),
        "faster_whisper": over(
            rows(REAL / "faster_whisper.jsonl", attack="Slowdown(steps=10)"),
            rows(REAL / "faster_whisper.jsonl", attack="clean"),
            ("sentence", "passes"),
        ),
        "voice_gate": over(
            rows(REAL / "voice_gate.jsonl", attack="Slowdown(steps=25)"),
            rows(REAL / "voice_gate.jsonl", attack="clean"),
            ("sound", "macs"),
        ),
        "smollm2": over(
            rows(readme_table.SMOLLM2, attack="Slowdown(steps=25)", threat="suffix:1", cap=160),
            rows(readme_table.SMOLLM2, attack="clean", cap=160),
            ("prompt", "passes"),
        ),
    }
    assert ratios.keys() == readme_table.SYSTEMS.keys()
    for name, found in ratios.items():
        assert len(found) > 2
        assert readme_table.SYSTEMS[name]().ratio == pytest.approx(sum(found) / len(found))


def over(
    attacked: list[dict[str, Any]], clean: list[dict[str, Any]], by: tuple[str, str]
) -> list[float]:
    """Of each input, its work over that of the clean one."""
    which, work = by
    before = {row[which]: row[work] for row in clean}
    return [row[work] / before[row[which]] for row in attacked]
