"""Joining a Ray cluster, or starting one that nobody else can reach."""

from __future__ import annotations

import io
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from effattack.errors import UsageError
from effattack.measure.environment import usable_cores
from effattack.runs import executors

REACH = 10.0
"""Seconds until an address that does not answer is given up."""
RETRIES = 3
"""How often Ray tries a task again whose worker or node was lost, or ran out of memory."""
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""At 0, a node has the address of the loopback, as on Windows and macOS; else its ports listen
on every interface."""
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How a client of gRPC begins: the preface of HTTP/2 and empty SETTINGS (RFC 9113, 3.4)."""
_SHIMS = Path(__file__).with_name("shims")
"""A folder whose ``amdsmi`` says that it is not there."""


def joined(address: str | None, cores: int | None) -> Any:
    """The module ``ray``, connected.

    Args:
        address: ``HOST:PORT`` of an existing cluster; None: a local one.
        cores: of a local cluster; None: all that are usable.

    Raises:
        UsageError: if the cluster cannot be joined.
    """
    variables = surroundings()
    quiet = {"configure_logging": False, "log_to_driver": False}
    if address is None:
        ray = _imported(local=True)
        with _environment(variables):  # of the processes that the cluster is made of
            ray.init("local", num_cpus=cores or usable_cores(), include_dashboard=False, **quiet)
        return ray
    ray = _imported(local=False)
    try:
        ray.init(address, runtime_env={"env_vars": variables}, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise UsageError(
            f"cannot join the Ray cluster at {address} ({said}): run effattack on a node of it, "
            "with the same Ray and Python"
        ) from error
    return ray


def surroundings() -> dict[str, str]:
    """Environment variables of Ray's processes."""
    own = executors.surroundings()
    if _amdsmi_breaks():
        own["PYTHONPATH"] = f"{_SHIMS}{os.pathsep}{own['PYTHONPATH']}"
    return own


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@cache
def _amdsmi_breaks() -> bool:
    """Whether importing amdsmi, which Zeus brings, raises a KeyError: no AMD driver is here.

    Ray expects an ImportError there, and could not be imported either; from now on it gets one.
    """
    try:
        with redirect_stdout(io.StringIO()):
            import amdsmi  # noqa: F401
    except ImportError:
        return False
    except Exception:
        sys.modules["amdsmi"] = None  # type: ignore[assignment]
        return True
    return False


def _imported(*, local: bool) -> Any:
    """Ray, which reads its settings when it is imported.

    Raises:
        UsageError: if it was imported with other settings.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # else a hungry cell has no end
    if local and os.environ.get(_LOOPBACK) != "0":
        if "ray" in sys.modules:
            raise UsageError(
                "ray was imported before effattack could keep it on the loopback: do not import it "
                "yourself, or start a cluster (ray start --head) and give its address"
            )
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.update({_LOOPBACK: "0", **token})
    import ray

    return ray


def reach(address: str) -> None:
    """Refuse an address behind which no gRPC answers: Ray itself would try for minutes.

    Raises:
        UsageError: after ``REACH`` seconds at the most.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise UsageError(f"Ray address {address!r}: write HOST:PORT, as ray start shows it")
    try:
        with socket.create_connection((host, int(port)), timeout=REACH) as server:
            server.sendall(_HELLO)
            answer = server.recv(4, socket.MSG_WAITALL)
    except (OSError, OverflowError) as error:
        answer, said = b"", str(error)
    else:
        said = "what answers is no gRPC"
    if answer[3:] != b"\x04":  # SETTINGS, the first frame of any server of HTTP/2
        raise UsageError(
            f"no Ray cluster answers at {address} ({said}): start one there (ray start --head), "
            "or correct the address"
        )
