"""An attack, a threat, a score and a domain of a package outside, each by name.

The package is the program of ``docs/write_a_domain.md``: once as a module in the current folder,
once installed with the entry points of ``docs/attacks.md``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from effattack.attacks.by_name import attack_class
from effattack.domains.by_name import domain_class
from effattack.errors import UsageError
from effattack.results.limits import parse_limit
from effattack.results.table import _installed, called
from effattack.threats import parse_threat

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
AT_PATHS = {
    "attack": "forms:TryLies(tries=20)",
    "threat": "forms:Lies(eps=3)",
    "score": "forms:asked_the_long_model",
    "domain": "forms:Forms(questions=12, answers=5)",
    "victim": "forms:Triage",
}
BY_NAMES = {
    "attack": "TryLies(tries=20)",
    "threat": "lies:3",
    "score": "asked",
    "domain": "forms(questions=12, answers=5)",
    "victim": "triage",
}


def block(page: str, language: str, holding: str) -> str:
    """The fenced block of a page that holds some text."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (found,) = (one for one in blocks if holding in one)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the module ``forms``."""
    (tmp_path / "forms.py").write_text(block("write_a_domain.md", "python", "class Forms(Domain)"))
    return tmp_path


@pytest.fixture
def installed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An empty folder, and the one where the package is installed with its entry points."""
    about = folder / "forms-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: forms\nVersion: 1.0\n")
    points = block("attacks.md", "toml", "effattack.threats")
    points = re.sub(r'project\.entry-points\."([\w.]+)"', r"\1", points).replace('"', "")
    (about / "entry_points.txt").write_text(points)
    return tmp_path_factory.mktemp("empty"), folder


def effattack(here: Path, *words: str, path: Path | None = None) -> subprocess.CompletedProcess:
    """The command, run in a folder; what is in ``path`` counts as installed."""
    places = [str(place) for place in (ROOT, path) if place]
    code = f"import sys; sys.path[:0] = {places!r}; from effattack.cli import main; "
    command = [sys.executable, "-P", "-c", f"{code}sys.exit(main({list(words)!r}))"]
    return subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)


def scored(here: Path, names: dict[str, str], path: Path | None = None) -> pd.DataFrame:
    """The scores of a run in which everything is named."""
    options = [f"--{key}={names[key]}" for key in ("victim", "attack", "threat", "score")]
    done = effattack(here, "run", *options, "--data=forms:heldout", "--json", path=path)
    assert done.returncode == 0, done.stderr[-2000:]
    return pd.DataFrame(json.loads(done.stdout)["scores"]).set_index("attack")


@pytest.mark.slow
def test_the_program_runs_as_it_stands(folder: Path) -> None:
    code = f"import runpy, sys; sys.path[:0] = [{str(ROOT)!r}]; "
    command = [sys.executable, "-P", "-c", f"{code}runpy.run_path('forms.py', run_name='__main__')"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "savings_retained" in done.stdout
    assert "TryLies" in done.stdout


@pytest.mark.slow
def test_by_the_path_of_a_module_in_the_current_folder(folder: Path) -> None:
    table = scored(folder, AT_PATHS)
    row = table.loc["TryLies(tries=20)"]
    assert (row.threat, row.eps) == ("lies", 3)
    assert row.asked > table.loc["clean"].asked, "the score of the package judges every row"
    assert "edits" in pd.read_parquet(folder / "effattack-report" / "samples.parquet")
    checked = effattack(folder, "check", AT_PATHS["domain"])
    assert checked.stdout == f"{AT_PATHS['domain']}: keeps its laws; forms\n", checked.stderr


@pytest.mark.slow
def test_by_the_names_that_an_installed_package_registers(installed: tuple[Path, Path]) -> None:
    empty, path = installed
    row = scored(empty, BY_NAMES, path).loc["TryLies(tries=20)"]
    assert (row.threat, row.eps) == ("lies", 3)
    for kind, name in BY_NAMES.items():
        listed = effattack(empty, "list", f"{kind}s", path=path).stdout
        assert re.search(rf"^{re.escape(re.split('[(:]', name)[0])}  ", listed, re.MULTILINE), kind
    checked = effattack(empty, "check", BY_NAMES["domain"], path=path)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.slow
def test_on_a_worker_the_same_rows_come_out(folder: Path) -> None:
    options = [f"--{key}={AT_PATHS[key]}" for key in ("victim", "attack", "threat")]
    frames = []
    for out, more in (("here", []), ("there", ["--workers=1"])):
        done = effattack(
            folder, "run", *options, "--data=forms:heldout", f"--out={out}", "--quiet", *more
        )
        assert done.returncode == 0, done.stderr[-2000:]
        frames.append(pd.read_parquet(folder / out / "samples.parquet"))
    key = ["attack", "seed", "sample"]
    here, there = (frame.sort_values(key)[[*key, "macs", "edits"]].values for frame in frames)
    assert (here == there).all()


HINTS: dict[str, tuple[Callable[[], object], str, str]] = {
    "attack": (lambda: attack_class("@@"), "CascadeAttack", "of other packages: TryLies"),
    "threat": (lambda: parse_threat("@@:3"), "linf:8/255", "of other packages: lies:SIZE"),
    "score": (lambda: called("@@"), "accuracy", "of other packages: asked"),
    "limit": (lambda: parse_limit("@@=1", fail_below=False), "macs", "of other packages: asked"),
    "domain": (lambda: domain_class("@@"), "pixels", "of other packages: forms"),
    "a near one": (lambda: attack_class("TryLie"), "did you mean TryLies", ""),
}


@pytest.mark.parametrize("kind", HINTS)
def test_hints_name_ours_and_those_of_other_packages(
    kind: str, installed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(installed[1])
    monkeypatch.delitem(sys.modules, "forms", raising=False)
    _installed.cache_clear()
    make, ours, others = HINTS[kind]
    try:
        with pytest.raises(UsageError) as caught:
            make()
    finally:
        _installed.cache_clear()
        sys.modules.pop("forms", None)
    assert ours in str(caught.value)
    assert others in str(caught.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--attack=forms:Missing",
            "forms has no callable 'Missing': 'forms:Missing' names nothing",
        ),
        ("--attack=form:TryLies", "cannot import 'form' for 'form:TryLies': run from the folder"),
        ("--attack=forms:Lies", "no class of effattack.attacks.Attack"),
        ("--threat=forms:Loes(eps=3)", "forms has no callable 'Loes'"),
        ("--threat=forms:TryLies", "no class of effattack.threats.Threat"),
        ("--score=form:asked", "cannot import 'form' for 'form:asked'"),
        ("--score=forms:Lies", "forms:Lies is"),
        ("--score=askd", "unknown score 'askd'"),
    ],
)
def test_a_name_that_does_not_import_is_told_by_its_part(
    folder: Path, option: str, message: str
) -> None:
    done = effattack(folder, "run", "--victim=forms:Triage", "--data=forms:heldout", option)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, "in one line"
