"""``docs/red.md`` leads from a red run to a green one, as it stands."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch

from effattack.cli import main

PAGE = (Path(__file__).parent.parent / "docs" / "red.md").read_text(encoding="utf-8")
SAID = re.compile(r"^mynet: savings retained is ([\d.]+), (below|at least) the limit", re.M)


@pytest.mark.slow
def test_from_red_to_green(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    network, more = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    trained, cure, judged = re.findall(r"^effattack .*$", PAGE.replace("\\\n", " "), re.M)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    Path("mynet.py").write_text(f"{network}\n\n{more}")
    with torch.random.fork_rng():
        runpy.run_path("mynet.py", run_name="__main__")
    kept = []
    for typed, code in ((trained, 1), (cure, 0), (judged, 0)):
        assert main(shlex.split(typed)[1:]) == code, typed
        kept += [float(value) for value, _ in SAID.findall(capsys.readouterr().out)]
    assert len(kept) == 2
    on_page = [float(value) for value in re.findall(r"savings retained is ([\d.]+)", PAGE)]
    assert kept == pytest.approx(on_page, abs=0.1)


def test_python_needs_no_more_than_is_said() -> None:
    """The page adds one import and one function."""
    _, more = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(more.split("\n\n\n")) == 2
