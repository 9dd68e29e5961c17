"""Pages from outside ``docs``: the reference by rooms, cards, and files that pages link to.

A hook of MkDocs: https://www.mkdocs.org/dev-guide/plugins/#events.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "effattack"
BROUGHT = {
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "reports/README.md": "reports.md",
}
"""Markdown outside ``docs`` that becomes a page, and which."""
NO_ROOM = ("__init__", "__main__", "moved", "reports")
LINK = re.compile(r"(?<!!)\[(?P<text>[^][]*)\]\((?P<path>[\w./-]+)(?P<anchor>#[\w-]*)?\)")
FENCED = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def rooms() -> Iterator[tuple[str, str]]:
    """Module and first line of what each room says of itself."""
    for place in sorted(PACKAGE.iterdir()):
        file = place / "__init__.py" if place.is_dir() else place
        if file.suffix != ".py" or not file.exists() or place.stem in NO_ROOM:
            continue
        said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        yield f"effattack.{place.stem}", (said or "").partition("\n")[0]


def reference() -> Iterator[tuple[str, str]]:
    """A page per room, and one of all of them."""
    table = ["# Reference", "", "| room | |", "|---|---|"]
    for module, said in rooms():
        page = f"reference/{module.rpartition('.')[2]}.md"
        table.append(f"| [`{module}`]({PurePosixPath(page).name}) | {said} |")
        yield page, f"# `{module}`\n\n::: {module}\n    options:\n      show_root_heading: false\n"
    yield "reference/index.md", "\n".join(table) + "\n"


def cards() -> str:
    """What the cards of all embedded victims say, as one table."""
    rows = [
        "# Victims of the zoo",
        "",
        "Each has a card beside its weights in `models_zoo/cards`; the command remakes it.",
        "",
        "| victim | family | accuracy | clean MACs | most | recipe |",
        "|---|---|---:|---:|---:|---|",
    ]
    for file in sorted((ROOT / "models_zoo" / "cards").glob("*.json")):
        card: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        rows.append(
            f"| `{file.stem}` | {card['family']} | {card['accuracy']:.1%} | "
            f"{card['clean_macs']:,.0f} | {card['max_macs']:,.0f} | `{card['recipe']}` |"
        )
    return "\n".join(rows) + "\n"


def outside(page: Path) -> Iterator[Path]:
    """Files of the repository that a page links to and that lie outside ``docs``."""
    for link in LINK.finditer(page.read_text(encoding="utf-8")):
        target = (page.parent / link["path"]).resolve()
        if target.is_file() and not target.is_relative_to(ROOT / "docs"):
            yield target.relative_to(ROOT)


def on_config(config: Any) -> Any:
    """The reference stands last, a page per room."""
    first, *pages = sorted((page for page, _ in reference()), key=lambda page: "index" not in page)
    config.nav.append({"Reference": [first, *pages]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds what is made, what is brought, and the files that either links to."""
    for page, text in [*reference(), ("cards.md", cards())]:
        files.append(File.generated(config, page, content=text))
    for source, page in BROUGHT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_moved(text, ROOT / source, page)))
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / source for source in BROUGHT)]
    linked = {path for page in pages for path in outside(page)}
    for path in sorted(linked - {Path(source) for source in BROUGHT}):
        files.append(File.generated(config, _copied(path), content=(ROOT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Links that leave ``docs`` lead to where the site has their target."""
    if page.file.generated_by:
        return markdown
    return _moved(markdown, ROOT / "docs" / page.file.src_uri, page.file.src_uri)


def _copied(path: Path) -> str:
    """Where the site has a file of the repository, as text that a browser shows."""
    return f"files/{path.as_posix().lstrip('.')}.txt"


def _moved(text: str, source: Path, page: str) -> str:
    """A text whose links, relative to its source, are relative to its page; folders have none."""

    def link(match: re.Match[str]) -> str:
        target = (source.parent / match["path"]).resolve()
        if not target.exists() or not target.is_relative_to(ROOT):
            return match[0]
        path = target.relative_to(ROOT)
        if path.parts[0] == "docs":
            inside = path.relative_to("docs").as_posix()
        elif target.is_dir():
            return match["text"]
        else:
            inside = BROUGHT.get(path.as_posix()) or _copied(path)
        there = os.path.relpath(inside, Path(page).parent)
        return f"[{match['text']}]({there}{match['anchor'] or ''})"

    parts = FENCED.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(link, part) for part in parts)
