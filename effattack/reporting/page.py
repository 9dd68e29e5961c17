"""A page: one HTML file with its style and its script inside, and a policy that forbids the rest.

The content security policy in the page allows the style, images inside the page, and the one script
that sorts and filters tables, by its hash. No network request is possible, and nothing that is
smuggled in by a name can run; names are escaped besides.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from effattack.reporting import words
from effattack.streams import shown


def render(template: str, **context: Any) -> str:
    """A template of ``templates/`` as a whole document; control characters are written out."""
    script = source("table.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    document = (
        _environment()
        .get_template(template)
        .render(
            css=Markup(source("charts.css") + source("report.css")),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
            words=words,
            **context,
        )
    )
    return shown(document)


@cache
def source(name: str) -> str:
    """The text of a file beside this one."""
    return files(__package__).joinpath(name).read_text("utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
