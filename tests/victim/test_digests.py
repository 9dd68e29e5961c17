"""Digests: what changes the hash of a victim or an attack, and what must not."""

from __future__ import annotations

import copy
import importlib
import logging
import sys
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from subprocess import run
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from torch import nn
from toys import SHAPE, LinearSaver, embedded, embedded_or_skip, grey_images, import_or_skip

from effattack import evaluate
from effattack.attacks import Slowdown
from effattack.victim import Opaque
from effattack.victim.digests import attack_digest, victim_digest
from effattack.victim.own_code import is_own, origin

Edit = Callable[[dict[str, str]], ModuleType]


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Write files of a user, by name; imports ``users_own`` as a new process would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forget() -> None:
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
                del sys.modules[name]

    def written(files: dict[str, str]) -> ModuleType:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        forget()
        importlib.invalidate_caches()
        return importlib.import_module("users_own")

    yield written
    forget()


def test_a_victim_is_known_by_weights_and_settings() -> None:
    victim = LinearSaver()
    digest = victim_digest(victim)
    assert victim_digest(copy.deepcopy(victim)) == digest
    assert victim_digest(copy.deepcopy(victim).train()) == digest
    assert victim_digest(LinearSaver(doubt=2.0)) != digest
    with torch.no_grad():
        victim.saver.weight[0, 0] += 1e-3
    assert victim_digest(victim) != digest


def test_the_threshold_inside_a_policy_counts() -> None:
    victim = copy.deepcopy(embedded("digits_cnn_early_exit"))
    digest = victim_digest(victim)
    victim.criterion.thresholds = 0.99
    assert victim_digest(victim) != digest


class Inner(torch.nn.Module):
    """A model inside a victim, with all that a digest could overlook."""

    def __init__(self, private: int = 1, shift: float = 0.0, policy: object = None) -> None:
        super().__init__()
        self._private = private
        self.policy = {"nested": [policy]}
        self.register_buffer("shift", torch.tensor(shift), persistent=False)
        self.linear = torch.nn.Linear(16, 2)
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.flatten(1) + self.shift)


class Other(Inner):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -super().forward(images)


class Policy:
    def __init__(self, level: float) -> None:
        self.level = level


def test_nothing_that_decides_is_overlooked() -> None:
    makers = [
        Inner,
        lambda: Inner(private=2),
        lambda: Inner(shift=1.0),
        lambda: Inner(policy=Policy(0.5)),
        lambda: Inner(policy=Policy(0.6)),
        Other,
    ]
    digests = {victim_digest(Opaque(make(), (1, 4, 4), name="opaque")) for make in makers}
    assert len(digests) == len(makers)
    again = {victim_digest(Opaque(make(), (1, 4, 4), name="opaque")) for make in makers}
    assert again == digests


def test_quantized_weights_have_a_stable_digest() -> None:
    victim = embedded_or_skip("digits_vit_int8")
    assert victim_digest(victim) == victim_digest(copy.deepcopy(victim))


MODEL = """
import torch
from torch import nn
{imports}
LEVEL = {level}

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 2)
    def forward(self, images):
        return self.linear(images.flatten(1)) * {factor}
"""
HELPER = "def factor():\n    return {value}\n"


def model(imports: str = "", level: float = 0.5, factor: str = "LEVEL") -> str:
    return MODEL.format(imports=imports, level=level, factor=factor)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"users_own.py": model()}, {"users_own.py": model(level=0.6)}),
        (
            {"users_own.py": model("from users_helper import factor", factor="factor()")}
            | {"users_helper.py": HELPER.format(value=1)},
            {"users_helper.py": HELPER.format(value=2)},
        ),
        (
            {
                "users_own.py": model("import users_pack.deep", factor="users_pack.deep.outer()"),
                "users_pack/__init__.py": "",
            }
            | {"users_pack/deep.py": "from .base import factor\nouter = lambda: factor()\n"}
            | {"users_pack/base.py": HELPER.format(value=1)},
            {"users_pack/base.py": HELPER.format(value=2)},
        ),
    ],
    ids=["a constant of the module", "a helper in another file", "two modules further"],
)
def test_an_edit_of_the_users_own_code_counts(
    edit: Edit, before: dict[str, str], after: dict[str, str]
) -> None:
    def digest(sources: dict[str, str]) -> str:
        return victim_digest(Opaque(edit(sources).Model(), SHAPE))

    first = digest(before)
    assert digest({}) == first  # a new import of the same files
    assert digest(after) != first


def test_a_constant_that_is_set_from_outside_counts(edit: Edit) -> None:
    mine = edit({"users_own.py": model()})
    victim = Opaque(mine.Model(), SHAPE)
    digest = victim_digest(victim)
    mine.LEVEL = 0.6
    assert victim_digest(victim) != digest
    mine.LEVEL = 0.5
    assert victim_digest(victim) == digest
    mine.Model.level = 3
    assert victim_digest(victim) != digest


READING = """
import json
from pathlib import Path
{imports}

LEVEL = json.loads((Path(__file__).parent / "level.json").read_text())

{more}
def level():
    return LEVEL
"""


@pytest.mark.parametrize(
    ("imports", "factor"),
    [
        ("import users_config", "users_config.LEVEL"),
        ("import users_config as c", "c.level()"),
        ("from users_config import LEVEL as T", "T"),
        ("import users_config", "users_config.Table.level"),
        ("from users_config import TABLE", "TABLE.level"),
        (
            "rule = eval((__import__('pathlib').Path(__file__).parent / 'rule').read_text())",
            "rule()",
        ),
    ],
    ids=["through a module", "by a function", "by name", "of a class", "of a dict", "evaluated"],
)
def test_values_that_are_read_from_files_count(edit: Edit, imports: str, factor: str) -> None:
    """No source says what they are."""
    more = (
        "class Table:\n    level = LEVEL\nclass D(dict): pass\nTABLE = D()\nTABLE.level = LEVEL\n"
    )
    files = {"users_own.py": model(imports, factor=factor), "rule": "lambda: 0.5"}
    files |= {"users_config.py": READING.format(imports="", more=more), "level.json": "0.5"}

    def digest(sources: dict[str, str]) -> str:
        return victim_digest(Opaque(edit(sources).Model(), SHAPE))

    first = digest(files)
    assert digest({}) == first
    assert digest({"level.json": "0.7", "rule": "lambda: 0.7"}) != first


OBJECTIVE = """
from effattack.attacks.objectives import MarginHinge

class Mine(MarginHinge):
    def __call__(self, trace, goal):
        return {sign}super().__call__(trace, goal)

def build(sign=1):
    return Mine()
"""


def test_an_edited_objective_is_another_attack(edit: Edit) -> None:
    victim = LinearSaver()

    def digest(sign: str) -> str:
        attack = Slowdown(victim)
        attack.objective = edit({"users_own.py": OBJECTIVE.format(sign=sign)}).build()
        return attack_digest(attack)

    assert digest("") == digest("")
    assert digest("") != digest("-")


CRITERION = """
from effattack.models_zoo.criteria import Confidence

class Mine(Confidence):
    def scores(self, logits):
        return {scale} * super().scores(logits)
"""


def test_an_edited_criterion_is_another_victim(edit: Edit) -> None:
    victim = copy.deepcopy(embedded("digits_cnn_early_exit"))

    def digest(scale: float) -> str:
        victim.criterion = edit({"users_own.py": CRITERION.format(scale=scale)}).Mine(0.5)
        return victim_digest(victim)

    assert digest(1.0) == digest(1.0) != digest(0.9)


class Held(nn.Module):
    """A model that registers nothing of what it computes with."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.held(images) if callable(self.held) else images.flatten(1)[:, :2]


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def closed_over(inner: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda images: inner(images)


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: nn.Module) -> None:
        self.inner = inner


def hooked(inner: nn.Module) -> nn.Module:
    outer = network(9)
    outer.register_forward_hook(lambda module, given, out: inner(given[0]))
    return outer


@pytest.mark.parametrize(
    "holding",
    [
        lambda inner: [inner],
        lambda inner: {"nested": ({"deep": inner},)},
        closed_over,
        hooked,
        Slotted,
        lambda inner: inner.forward,
        lambda inner: partial(torch.nn.functional.linear, weight=inner[1].weight),
        lambda inner: inner[1].weight.detach().numpy(),
        lambda inner: inner[1].weight.detach().to_sparse(),
        lambda inner: torch.jit.trace(inner, torch.zeros(1, 16)),
        lambda inner: torch.export.export(inner, (torch.zeros(1, 16),)).module(),
        lambda inner: torch.compile(inner),
    ],
    ids=[
        "list",
        "nested",
        "closure",
        "hook",
        "slots",
        "method",
        "partial",
        "array",
        "sparse",
        "scripted",
        "exported",
        "compiled",
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_weights_count_wherever_they_are_held(holding: Callable[[nn.Module], Any]) -> None:
    first, again, other = (victim_digest(Held(holding(network(seed)))) for seed in (0, 0, 1))
    assert first == again != other


def test_a_compiled_victim_is_the_same_before_and_after_it_ran() -> None:
    first, second = (torch.compile(network(0), backend="eager") for _ in range(2))
    digest = victim_digest(Held(first))
    first(torch.zeros(1, 16))
    assert victim_digest(Held(first)) == victim_digest(Held(second)) == digest


def test_what_cannot_be_told_apart_between_processes_is_left_out() -> None:
    """Locks, loggers, generators: equal for two victims made alike."""

    def made() -> Held:
        held = {"lock": threading.Lock(), "log": logging.getLogger("mine"), "at": object()}
        return Held([held, torch.Generator(), iter([1]), open(__file__, encoding="utf-8")])

    assert victim_digest(made()) == victim_digest(made())


def test_an_object_that_holds_itself_has_a_digest() -> None:
    def made(value: float) -> Held:
        loop: list[Any] = [value]
        loop.append({"again": loop})
        return Held(loop)

    assert victim_digest(made(1.0)) == victim_digest(made(1.0)) != victim_digest(made(2.0))


def test_the_store_never_answers_for_edited_code(edit: Edit, tmp_path: Path) -> None:
    """The whole way: the same call on the same folder, after an edit of the user's objective."""

    def scored(sign: str) -> float:
        victim = LinearSaver()
        attack = Slowdown(victim, steps=3)
        attack.objective = edit({"users_own.py": OBJECTIVE.format(sign=sign)}).build()
        images, labels = grey_images(4), torch.zeros(4, dtype=torch.long)
        found = evaluate(victim, images, labels, [attack], timed=0, out=tmp_path / "out")
        rows = found.samples
        return float(rows[rows.attack == attack.name].macs.sum())

    files = tmp_path / "out" / "cells"
    scored("")
    before = len(list(files.glob("*.parquet")))
    scored("")
    assert len(list(files.glob("*.parquet"))) == before
    scored("-")
    assert len(list(files.glob("*.parquet"))) == before + 1


def test_a_file_counts_by_what_stands_in_it(tmp_path: Path) -> None:
    def held(name: str, content: str) -> str:
        path = tmp_path / name
        path.write_text(content)
        victim = LinearSaver()
        victim.file = path  # type: ignore[assignment]
        return victim_digest(victim)

    assert held("a", "one") == held("b", "one") != held("a", "two")


def wheel(folder: Path, version: str, source: str) -> Path:
    """A package ``bought`` of one module, as its makers would publish it."""
    path, info = folder / f"bought-{version}-py3-none-any.whl", f"bought-{version}.dist-info"
    files = {
        "bought/__init__.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: bought\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    hashes = {name: sha256(text.encode()).digest() for name, text in files.items()}
    rows = "".join(
        f"{name},sha256={urlsafe_b64encode(found).decode().rstrip('=')},{len(files[name])}\n"
        for name, found in hashes.items()
    )
    rows += f"{info}/RECORD,,\n"
    with ZipFile(path, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": rows}.items():
            archive.writestr(name, text)
    return path


def bought(target: Path, version: str, source: str) -> None:
    typed = ["install", "--no-index", "--no-deps", "--quiet", "--disable-pip-version-check"]
    made = wheel(target.parent, version, source)
    run([sys.executable, "-m", "pip", *typed, "--target", target, made], check=True)


@pytest.mark.slow
def test_what_pip_put_into_a_folder_is_no_code_of_the_users(
    edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own list tells one version from another; what stands beside it is the user's still."""
    import_or_skip("pip")
    digests = []
    for version, target in (("1.0", "a"), ("1.0", "b"), ("2.0", "c")):
        bought(tmp_path / target, version, f"import colorsys\nLEVEL = 0.5  # {version}\n")
        monkeypatch.syspath_prepend(str(tmp_path / target))
        mine = edit({"users_own.py": model("from bought import LEVEL as T", factor="T")})
        module = importlib.import_module("bought")
        assert Path(module.__file__ or "").is_relative_to(tmp_path / target)
        assert not is_own("bought")
        assert is_own("users_own")
        digests.append((origin("bought"), victim_digest(Opaque(mine.Model(), SHAPE))))
        (tmp_path / target / "beside.py").write_text("LEVEL = 1\n")
        assert is_own("beside")
    assert digests[0][0] == digests[1][0] != digests[2][0]
