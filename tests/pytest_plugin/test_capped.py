"""A limit on how many texts the cap ends, as an option of pytest and of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import QUICK, section

from effattack.cli import main

SOURCE = """
    import pytest
    from prompts import Decoder, some_prompts

    @pytest.fixture
    def scored(effattack_evaluate):
        victim, prompts = Decoder(), some_prompts(10)
        labels = victim.task.answer(victim(prompts))
        attack = "QueryAttack(queries=6)"
        return effattack_evaluate(victim, prompts, labels, [attack], eps="suffix:2", timed=0)

    def test_it(scored):
        assert scored.scores().cap_hit_rate.notna().all()
"""
BUILD = """
from prompts import Decoder, some_prompts

def build():
    return Decoder()

def data():
    prompts = some_prompts(10)
    return prompts, build().task.answer(build()(prompts))
"""


@pytest.mark.parametrize(("limit", "kept"), [(1, True), (0, False)])
def test_a_limit_of_the_session(pytester: pytest.Pytester, limit: float, kept: bool) -> None:
    pytester.makepyfile(SOURCE)
    option = f"--effattack-fail-above=cap_hit_rate={limit}"
    result = pytester.runpytest_inprocess(*QUICK, option)
    result.assert_outcomes(passed=int(kept), errors=int(not kept))
    told = section(result)
    assert (
        f"{'passed: cap_hit_rate at most' if kept else 'failed: cap_hit_rate above'} {limit}"
        in told
    )
    assert "of 6 passes (MACs ×" in told
    if not kept:
        result.stdout.fnmatch_lines(["*decoder: cap hit rate is 0.*above the limit 0*passes*"])


@pytest.mark.parametrize(("limit", "code"), [("1", 0), ("0.05", 1)])
def test_a_limit_of_a_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limit: str,
    code: int,
) -> None:
    (tmp_path / "writes.py").write_text(BUILD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--victim", "writes:build", "--data", "writes:data", "--threat", "suffix:2"]
    options += ["--attack", "QueryAttack(queries=6)", "--timing", "0"]
    assert main(["run", *options, "--fail-above", f"cap_hit_rate={limit}"]) == code
    said = capsys.readouterr()
    assert "cap hit rate is 0." in said.out + said.err
