"""Roles of docstrings, as ``:func:`evaluate```, become links of the reference.

An extension of Griffe: https://mkdocstrings.github.io/griffe/guide/users/extending/.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(?P<shown>~?)(?P<name>[\w.]+)`")


class Roles(Extension):
    """Writes a role as a cross-reference, or as code where the reference does not know the name."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(lambda role: linked(role, obj), obj.docstring.value)


def linked(role: re.Match[str], obj: Object) -> str:
    name = role["name"]
    shown = name.rpartition(".")[2] if role["shown"] else name
    whole = name if name.startswith("effattack.") else f"{obj.module.path}.{name}"
    return f'<autoref identifier="{whole}" optional><code>{shown}</code></autoref>'
