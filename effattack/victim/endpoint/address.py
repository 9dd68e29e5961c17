"""Where a server is, and the key to it."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from effattack.errors import UsageError


def parsed(url: str) -> tuple[bool, str, int, str]:
    """Whether it is secure, host, port, path.

    Raises:
        UsageError: for what is no URL of a server, or one that holds a name or a key.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise UsageError(f"{url.split('@')[-1]!r} is no URL of a server: as http://127.0.0.1:8000")
    if "@" in parts.netloc:
        raise UsageError("the URL holds a key: put it into the environment (key_from, --key-from)")
    secure = parts.scheme == "https"
    return secure, host, port or (443 if secure else 80), parts.path.rstrip("/") or "/v1"


def on_loopback(host: str) -> bool:
    """Whether a host is this machine, as far as its name says."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def key_of(variable: str | None) -> str | None:
    """The key that an environment variable holds; None for none.

    Raises:
        UsageError: if it is not set, or holds what is no key; what it holds is not told.
    """
    if variable is None:
        return None
    found = os.environ.get(variable, "").strip()
    if not found:
        raise UsageError(f"the environment has no {variable}: set it to the server's key")
    if not (found.isascii() and found.isprintable()):
        raise UsageError(f"{variable} holds characters that no key has: set it to the key alone")
    return found
