"""Streams of any encoding, texts that a terminal would obey, output for programs, files."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest

import effattack
from effattack import streams
from effattack.cli import main
from effattack.cli.terminal import PLAIN, Screen

ROOT = Path(effattack.__file__).parents[1]
SOURCES = [
    path for name in ("effattack", "models_zoo", "suites", "benchmarks")
    for path in sorted((ROOT / name).rglob("*.py"))
]  # fmt: skip


@contextmanager
def narrow(encoding: str) -> Iterator[Callable[[], str]]:
    """A standard output that cannot write every character; tells what was written."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    with redirect_stdout(stream):
        yield lambda: stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("encoding", "times"), [("ascii", "x"), ("cp1252", "×")])
def test_narrow_streams_get_the_nearest_characters(encoding: str, times: str) -> None:
    with narrow(encoding) as told:
        with streams.safe():
            Screen().print("×2: 2,536 → 6,120 at ε ≥ σ, ë² ☃", **PLAIN)
            print("→")
        assert sys.stdout.errors == "strict"
    nearest = "e2" if encoding == "ascii" else "ë²"
    assert told() == f"{times}2: 2,536 -> 6,120 at eps >= sigma, {nearest} \\u2603\n->\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_commands_on_narrow_streams(encoding: str) -> None:
    with narrow(encoding) as told:
        assert main(["list", "attacks"]) == 0
        assert main(["doctor"]) == 0
        with pytest.raises(SystemExit, match="0"):
            main(["run", "--help"])
    assert "Slowdown" in told()


def test_the_pytest_plugin_on_a_narrow_terminal() -> None:
    assert streams.encodable("10 → 15", "ascii") == "10 -> 15"
    assert streams.encodable("10 → 15", None) == "10 → 15"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("a\x9bb\x7f", "a\\x9bb\\x7f"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("name\udcff", "name\\udcff"),
        ("lines\n\tstay → so", "lines\n\tstay → so"),
    ],
)
def test_control_characters_are_shown(text: str, told: str) -> None:
    assert streams.shown(text) == told


def test_no_console_and_no_warning_sends_an_escape() -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("a long header")
    table.add_row(Text("\x1b[2J"))
    screen = Screen(file=io.StringIO(), force_terminal=True, width=60)
    screen.print("\x1b[31m", **PLAIN)
    screen.print(table)
    assert screen.file.getvalue().count("\\x1b[") == 2
    with streams.safe():
        assert "\x1b" not in warnings.formatwarning("\x1b[31m", UserWarning, "file", 1)


def test_a_victims_message_and_its_traceback_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    raises = "def build(): raise ValueError('\\x1b[31m')\n"
    Path("escaping.py").write_text(raises, encoding="utf-8")
    assert main(["run", "--victim", "escaping:build"]) == 2
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "\x1b" not in told
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--wha\x1bt"])
    assert "\x1b" not in capsys.readouterr().err


def test_a_reader_that_leaves_does_not_change_the_exit_code() -> None:
    code = "import sys; from effattack.cli.terminal import Screen; s = Screen(); s.print('x')"
    code += "; s.print('y'); sys.exit(7)"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (7, b"")


def test_json_has_the_standard_output_for_itself() -> None:
    code = """
import ctypes, os
from effattack import streams
with streams.reserved() as out:
    print("python")
    os.system("echo child")
    ctypes.CDLL(None).printf(b"library")
    print("{}", file=out)
print("after")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout == "{}\nafter\n"
    for told in ("python", "child", "library"):
        assert told in done.stderr


def test_prints_of_a_victim_are_no_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    source = "from toys import *\nfrom faulty import data\n"
    source += "def build():\n    print('built')\n    return LinearSaver()\n"
    Path("printing.py").write_text(source, encoding="utf-8")
    options = ["--victim", "printing:build", "--data", "printing:data", "--attack", "Slowdown"]
    assert main(["run", *options, "--samples", "6", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["schema"] == 1
    assert "built" in told.err


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_text_file_is_read_and_written_in_a_named_encoding(path: Path) -> None:
    assert not [*unnamed(ast.parse(path.read_bytes()))]


def test_an_unnamed_encoding_would_be_caught() -> None:
    source = "p.read_text(); p.open('w'); open(p); os.fdopen(3, 'w'); run(c, text=True)"
    assert len([*unnamed(ast.parse(source))]) == 5
    named = "p.read_text('ascii'); p.open('rb'); Image.open(p); open(p, encoding='utf-8')"
    assert not [*unnamed(ast.parse(named))]


def unnamed(tree: ast.AST) -> Iterator[int]:
    """Lines of calls that open text in whatever encoding the machine has."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            owner = getattr(getattr(call.func, "value", None), "id", None)
            keys = {keyword.arg for keyword in call.keywords}
            if "encoding" not in keys and _of_text(name, owner, call, keys):
                yield call.lineno


def _of_text(name: str, owner: str | None, call: ast.Call, keys: set[str | None]) -> bool:
    if name in ("read_text", "write_text"):
        return len(call.args) < 1 + (name == "write_text")
    if "text" in keys and name in ("run", "Popen", "check_output"):
        return True
    plain = owner is None and isinstance(call.func, ast.Name)
    if name == "fdopen" or (name == "open" and plain):
        modes = call.args[1:2]
    elif name == "open" and (call.args or keys) and owner not in ("Image", "os"):
        modes = call.args[:1]
        if modes and not _is_mode(modes[0]):
            return False
    else:
        return False
    return not (modes and isinstance(modes[0], ast.Constant) and "b" in str(modes[0].value))


def _is_mode(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and set(str(value.value)) <= set("rwxab+t")
