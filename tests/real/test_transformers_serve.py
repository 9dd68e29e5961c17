"""``effattack caps`` and an endpoint against ``transformers serve`` with a tiny random model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from effattack.cli import main

pytestmark = pytest.mark.slow
TEXT = "count from one to ten and on two three four five six seven eight nine"
NEEDED = ("transformers", "tokenizers", "fastapi", "uvicorn", "openai")
SERVE = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'x'; main()"


def save_tiny(folder: Path) -> None:
    """A random Llama of two layers that writes whole words for ever, and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    plain: Any = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=letters, show_progress=False
    )
    plain.train_from_iterator([TEXT] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<end>", pad_token="<end>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    ids = plain.get_vocab()
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"eos_token_id": 0, "pad_token_id": 0, "bos_token_id": None}
    config = LlamaConfig(vocab_size=len(ids), initializer_range=0.5, **sizes, **heads, **ends)
    model = LlamaForCausalLM(config)
    written = {ids[f"Ġ{word}"] for word in TEXT.split()[1:]}
    with torch.no_grad():
        model.lm_head.weight[[i for i in range(len(ids)) if i not in written]] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its URL, and the folder that holds the model ``./tiny``."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        pytest.skip(
            f"{', '.join(missing)} not installed (pip install 'transformers[serving]'), or there "
            "is no network"
        )
    folder = tmp_path_factory.mktemp("served")
    save_tiny(folder / "tiny")
    port = free_port()
    ran = [sys.executable, "-c", SERVE, "serve", "./tiny", "--host", "127.0.0.1", "--port"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*ran, str(port)], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()
            if answers(port):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", folder / "tiny"
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_it_caps_tokens_and_ignores_n(
    server: tuple[str, Path], capsys: pytest.CaptureFixture
) -> None:
    url, folder = server
    named = ["--model", "./tiny", "--tokenizer", str(folder)]
    budget = ["--requests", "20", "--tokens", "2000", "--prompt", "count from one to ten"]
    assert main(["caps", url, *named, *budget, "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    found = {(row["promise"], row["way"]): row for row in rows}
    for way in ("plain", "stream"):
        for promise in ("max_tokens", "max_completion_tokens", "usage", "finish_reason", "stop"):
            assert found[promise, way]["verdict"] == "holds", found[promise, way]
        assert found["max_tokens", way]["tokens"] == 24
        assert found["max_tokens", way]["claimed"] == 24
        assert found["n", way]["found"] == "asked for 2 texts, got 1"


def test_it_is_a_victim_whose_usage_is_what_is_counted(server: tuple[str, Path]) -> None:
    """It never ends by itself: all is at the cap, and the server claims just that."""
    import torch

    from effattack import evaluate
    from effattack.victim.endpoint import Endpoint, tokenizer_of

    url, folder = server
    words = tokenizer_of(folder)
    limits = {"cap": 24, "longest": 16, "requests": 200, "tokens": 20_000}
    victim = Endpoint(url, "./tiny", tokenizer=words, name="tiny", **limits)
    ids = [words.encode(text) for text in ("count from one", "and on two three")]
    prompts = torch.full((2, max(map(len, ids))), -1)
    for row, found in zip(prompts, ids, strict=True):
        row[: len(found)] = torch.tensor(found)
    none = torch.full((2, 1), -1)
    result = evaluate(victim, prompts, none, ["BestOfRandom(draws=3)", "Slowdown"], eps="suffix:2")
    rows = result.samples
    assert set(rows.attack) >= {"clean", "noise", "BestOfRandom(draws=3)"}
    assert (rows.output_tokens == 24).all()
    assert (rows.claimed_tokens == 24).all()
    assert rows.capped.all()
    assert rows.macs.isna().all()
    (claim,) = [check for check in result.checks() if "usage" in check.check]
    assert claim.passed
    assert "lifts no words" in result.meta["skipped"][0]["reason"]
    assert 200 - victim.server.requests_left == len(victim.server.asked)
