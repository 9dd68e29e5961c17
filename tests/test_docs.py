"""The code in README and docs runs as it stands."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from effattack import Gate, Trace, audit
from effattack.cli import parser
from effattack.errors import AuditError, MissingPackage

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "reports" / "README.md", *sorted(DOCS.glob("*.md"))]
ELSEWHERE = "checkpoints.md"
"""Its code needs files, which tests/models_zoo/test_checkpoints.py makes."""
OWN = ("bring_your_own.md", "your_own_model.md")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """(page and line, code) of every fenced block of a language."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 1
            found.append((f"{page.name}:{line}", match[1]))
    return found


PYTHON = [block for block in blocks("python") if not block[0].startswith(ELSEWHERE)]


@pytest.mark.parametrize(("place", "code"), PYTHON, ids=lambda value: value[:24])
def test_python_blocks_run(
    place: str,
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "def test_" in code:
        compile(code, place, "exec")
        return
    names: dict[str, Any] = {}
    try:
        exec(compile(code, place, "exec"), names)
    except MissingPackage as error:
        pytest.skip(str(error))
    if place.startswith(OWN):
        assert "savings_retained" in capsys.readouterr().out, "every example ends in a scored table"
        check_examples_are_audited(names["victim"], names["images"][:1], monkeypatch)


def check_examples_are_audited(victim: Any, images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example passes, and is caught declaring more. Opaque declares what it counts."""
    audit(victim, images)
    if victim.family == "opaque":
        return
    honest = type(victim).trace

    def dishonest(self: Any, images: Any) -> Any:
        trace = honest(self, images)
        return trace._replace(macs=trace.macs + 1000)

    monkeypatch.setattr(type(victim), "trace", dishonest)
    with pytest.raises(AuditError, match=rf"\(\+1,000\); executed: {type(victim).__name__}\."):
        audit(victim, images)


def test_the_three_examples_are_short() -> None:
    lengths = [
        sum(bool(line.strip()) for line in code.splitlines())
        for place, code in blocks("python")
        if place.startswith("bring_your_own.md")
    ]
    assert max(lengths[:3]) <= 25


@pytest.mark.parametrize(
    "code", [code for place, code in PYTHON if place.startswith("your_own_model.md")]
)
def test_ten_lines_wrap_your_own_model(code: str) -> None:
    """Whatever would not be there without the wrapper."""
    statements = ast.parse(code).body
    wrapping = [s for s in statements if re.search(r"Hooked|Decision", ast.unparse(s))]
    assert ast.unparse(wrapping[-1]).startswith("victim = Hooked(")
    assert sum(s.end_lineno - s.lineno + 1 for s in wrapping if s.end_lineno) <= 10


def commands() -> list[str]:
    """Every effattack command in an indented or fenced block, on one line."""
    lines = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        code = FENCED.findall(text) + re.findall(r"^ {4}.*$", FENCED.sub("", text), re.MULTILINE)
        for block in code:
            lines += re.findall(r"^ *(effattack [a-z].*)$", block, re.MULTILINE)
    return lines


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    assert parser().parse_args(words).handler


@pytest.mark.parametrize("told", [Gate, Trace], ids=["Gate", "Trace"])
def test_the_contract_tells_every_field(told: Any) -> None:
    page = (DOCS / "contract.md").read_text(encoding="utf-8")
    section = page[page.index(f"## {told.__name__}:") :].split("## ")[1]
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == list(told._fields)


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    missing = [
        p.name for p in DOCS.glob("*.md") if p.stem != "README" and f"({p.name})" not in index
    ]
    assert not missing, f"docs/README.md links to none of {missing}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", FENCED.sub("", page.read_text())):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
