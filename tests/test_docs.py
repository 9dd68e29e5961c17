"""The code in README and docs runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = "checkpoints.md"
"""Its code needs files, which tests/models_zoo/test_checkpoints.py makes."""


def blocks(language: str) -> list[tuple[str, str]]:
    """(page and line, code) of every fenced block of a language."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 1
            found.append((f"{page.name}:{line}", match[1]))
    return found


RUN = [block for block in blocks("python") if not block[0].startswith(ELSEWHERE)]


@pytest.mark.parametrize(("place", "code"), RUN, ids=lambda value: value[:20])
def test_python_blocks_run(place: str, code: str) -> None:
    if "def test_" in code:
        compile(code, place, "exec")
    else:
        exec(compile(code, place, "exec"), {})


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
