"""Cells: what changes their hash, and what survives."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import grey_images

import effattack
from effattack.cells.spec import CellSpec, Timed, Work, code_version, data_digest
from effattack.domains import Pixels, Tokens

SPEC = CellSpec(
    work=Work.ATTACK,
    victim="toy",
    victim_digest="v",
    attack="Slowdown",
    options="Slowdown(eps=8/255)",
    attack_digest="a",
    eps=8 / 255,
    seed=0,
    first=0,
    last=100,
    data_digest="d",
    kept=100,
    device="cpu",
    threads=1,
    code="0.1.0+abc",
    torch="2.15.0",
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("work", Work.TIMING),
        ("victim_digest", "w"),
        ("options", "Slowdown(eps=8/255, steps=9)"),
        ("attack_digest", "b"),
        ("timed", Timed(4)),
        ("place", "a processor"),
        ("attacked", "c"),
        ("eps", 4 / 255),
        ("seed", 1),
        ("first", 100),
        ("data_digest", "e"),
        ("threads", 2),
        ("code", "0.1.1"),
    ],
)
def test_everything_that_decides_the_rows_decides_the_key(key: str, value: object) -> None:
    assert replace(SPEC, **{key: value}).key != SPEC.key
    assert replace(SPEC).key == SPEC.key


def test_data_are_known_by_pixels_and_labels() -> None:
    images, labels = grey_images(4), torch.tensor([0, 1, 0, 1])
    domain = Pixels((1, 4, 4))
    digest = data_digest(domain, images, labels)
    assert data_digest(domain, images.clone(), labels.int()) == digest
    assert data_digest(domain, images.flip(0), labels) != digest
    assert data_digest(domain, images, 1 - labels) != digest


def test_prompts_are_known_by_their_tokens_wherever_one_ends() -> None:
    """The same ids in a row, parted elsewhere, are other prompts; padding is none of them."""
    domain, labels = Tokens(9, 4), torch.tensor([0, 1])
    prompts = torch.tensor([[1, 2, -1], [3, -1, -1]])
    digest = data_digest(domain, prompts, labels)
    assert data_digest(domain, torch.tensor([[1, 2], [3, -1]]), labels) == digest
    assert data_digest(domain, torch.tensor([[1, -1], [2, 3]]), labels) != digest


def test_what_only_shows_decides_no_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every other source of effattack does; the contract was once forgotten."""
    copied = tmp_path / "effattack"
    shutil.copytree(Path(effattack.__file__).parent, copied, ignore=shutil.ignore_patterns("*.s*"))
    monkeypatch.setattr(effattack, "__file__", str(copied / "__init__.py"))
    version = code_version.__wrapped__()
    for file in ("cli/run.py", "reporting/page.py", "cli/terminal.py"):
        (copied / file).write_text("# edited")
    assert code_version.__wrapped__() == version
    for file in ("victim/checks/gates.py", "models_zoo/criteria.py", "runs/sweep.py"):
        (copied / file).write_text("# edited")
        assert code_version.__wrapped__() != version
        version = code_version.__wrapped__()
