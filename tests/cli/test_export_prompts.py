"""The worst prompts of a generator: kept, judged again, and written for benchmarks of servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from own_module import written

from effattack.cli import main
from effattack.inputs.corpus import read_corpora
from effattack.runs.prompts import FORMATS
from effattack.victim import load_victim

LINES = [{"text": "34+58=", "answer": "12,9,92"}, {"text": "5291=", "answer": "2519,2159,1259"}]
SWEEP = """
victims = ["sums_lm"]
attacks = ["QueryAttack(queries=10)"]
budgets = ["suffix:2"]
data = "sums.jsonl"
timed = 0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With two sums and their exact answers in it."""
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (tmp_path / "sweep.toml").write_text(SWEEP)
    return written(tmp_path, monkeypatch, "")


@pytest.mark.slow
def test_a_run_on_lines_of_prompts_its_replay_and_its_exports(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "sweep.toml"]) == 0
    assert main(["run", "--replay", "effattack-report/corpus", "--verbose"]) == 0
    assert "2 worst prompts" in capsys.readouterr().out
    (corpus,) = read_corpora(folder / "effattack-report" / "corpus")
    victim = load_victim("sums_lm")
    ids = victim.domain.unpack(corpus.attacked, victim.domain.example(1))
    with torch.no_grad():
        spent = victim.trace(ids).also["output_tokens"].tolist()
    assert (
        victim.task.right(victim.task.answer(victim(ids)), torch.from_numpy(corpus.labels)).sum()
        < 2
    )
    found = {}
    for form in FORMATS:
        typed = ["export", "sums_lm", "--prompts", f"{form}.jsonl", "--format", form]
        assert main([*typed, "--corpus", "effattack-report/corpus"]) == 0
        found[form] = [json.loads(line) for line in Path(f"{form}.jsonl").read_text().splitlines()]
    texts = [victim.domain.tokenizer.decode(row[row >= 0].tolist()) for row in ids]
    assert all(text.startswith(line["text"]) for text, line in zip(texts, LINES, strict=True))
    assert found["vllm"] == [{"prompt": text, "output_tokens": 48} for text in texts]
    assert found["aiperf"] == [{"text": text, "output_length": 48} for text in texts]
    otel = found["otel"]
    assert [one["gen_ai.usage.output_tokens"] for one in otel] == spent
    assert [one["gen_ai.usage.input_tokens"] for one in otel] == [len(text) for text in texts]
    reasons = [one["gen_ai.response.finish_reasons"] for one in otel]
    assert reasons == [["length" if tokens == 48 else "stop"] for tokens in spent]


def test_a_corpus_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "sums_lm", "--prompts", "a.jsonl"]) == 2
    assert "name it with --corpus" in capsys.readouterr().err
    assert main(["export", "sums_lm", "--prompts", "a.jsonl", "--corpus", "none"]) == 2


def test_victims_of_other_inputs_have_no_prompts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from effattack.runs.prompts import worst_prompts

    for name, told in {
        "digits_vit_ats": "takes images",
        "text_exit": "read prompts of a gen",
    }.items():
        with pytest.raises(ValueError, match=told):
            worst_prompts(load_victim(name), [])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"text": "34+58=", "answer": "twelve"}, "line 3: of its answer: no token stands for 'e'"),
        ({"text": "3 + 4", "answer": "7"}, "line 3: no token stands for ' '"),
        ({"text": "", "answer": "7"}, "line 3: its text is empty"),
        ({"text": "1" * 99, "answer": "7"}, "line 3: its text has 99 tokens"),
    ],
)
def test_a_broken_line_is_told_by_its_number(
    folder: Path, capsys: pytest.CaptureFixture[str], line: dict[str, str], fault: str
) -> None:
    with (folder / "sums.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    assert main(["run", "sweep.toml"]) == 2
    assert fault in capsys.readouterr().err
