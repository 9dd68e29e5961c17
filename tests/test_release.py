"""What a release promises: one version everywhere, and old names that warn until they end."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import effattack
from effattack.moved import END, MOVED

ROOT = Path(__file__).parent.parent


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def released() -> list[str]:
    """Versions of the changelog, the newest first."""
    return re.findall(r"^## (\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)$", changelog(), re.MULTILINE)


def changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_one_version_everywhere() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert cited == released()[0] == effattack.__version__


def test_the_changelog_begins_with_the_first_version() -> None:
    versions = released()
    assert versions == sorted(versions, key=numbers, reverse=True)
    assert versions[-1] == "0.1.0"


def test_an_attack_that_grew_stands_in_the_changelog() -> None:
    from effattack.attacks.by_name import attack_class, names

    for name in names():
        if "." not in name and attack_class(name).edition > 1:
            assert re.search(rf"`{name}`[^#]*the attack grew", changelog()), name


def test_old_paths_have_a_version_left() -> None:
    """In the version that they end with they are deleted, and this table with them."""
    assert numbers(effattack.__version__) < numbers(END)


@pytest.mark.parametrize("old", sorted(MOVED))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_path_warns_and_names_the_new_one(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"effattack.{old}"
    for name in [name for name in sys.modules if f"{path}.".startswith(f"{name}.")][1:]:
        if name.removeprefix("effattack.") in MOVED:
            monkeypatch.delitem(sys.modules, name)
    new = " and ".join(f"effattack.{place}" for place in MOVED[old])
    line = f"^{path} is now {new}; the old path ends with version {END}$"
    with pytest.warns(DeprecationWarning, match=line):
        import_module(path)


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("contract", "held_to", "victim.checks"),
        ("evaluation", "evaluate", "runs.evaluate"),
        ("images", "Pixels", "domains.pixels"),
        ("measure.macs", "count_macs", "counting.macs"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_path_gives_what_is_at_the_new_one(old: str, name: str, new: str) -> None:
    assert getattr(import_module(f"effattack.{old}"), name) is getattr(
        import_module(f"effattack.{new}"), name
    )


def test_a_function_that_moved_warns() -> None:
    from effattack import registry, victim

    with pytest.warns(DeprecationWarning, match=rf"now effattack.victim.load_victim.*{END}"):
        assert registry.load_victim is victim.load_victim
