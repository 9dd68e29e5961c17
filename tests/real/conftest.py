"""Real series, networks and weights, which packages from outside bring along: ``tox -e real``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from effattack.models_zoo.detection.mtcnn_networks import PIP


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is trained here is kept for this run only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def aeon() -> None:
    """A test that needs it skips, loudly, where it is missing."""
    if find_spec("aeon") is None:
        pytest.skip("aeon is not installed (pip install --no-deps aeon), or there is no network")


@pytest.fixture(scope="session")
def facenet() -> None:
    """Likewise."""
    if find_spec("facenet_pytorch") is None:
        pytest.skip(f"facenet-pytorch is not installed ({PIP}), or there is no network")
