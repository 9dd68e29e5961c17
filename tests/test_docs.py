"""The code in README and docs runs as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from effattack.cli import parser

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "reports" / "README.md", *sorted(DOCS.glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """(page and line, code) of every fenced block of a language."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 1
            found.append((f"{page.name}:{line}", match[1]))
    return found


@pytest.mark.parametrize(("place", "code"), blocks("python"), ids=lambda value: value[:20])
def test_python_blocks_run(
    place: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "def test_" in code:
        compile(code, place, "exec")
    else:
        exec(compile(code, place, "exec"), {})


def commands() -> list[str]:
    """Every effattack command in an indented or fenced block, on one line."""
    lines = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        lines += re.findall(r"^ *(effattack [a-z].*)$", text, re.MULTILINE)
    return lines


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    assert parser().parse_args(words).handler


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    missing = [
        p.name for p in DOCS.glob("*.md") if p.stem != "README" and f"({p.name})" not in index
    ]
    assert not missing, f"docs/README.md links to none of {missing}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
