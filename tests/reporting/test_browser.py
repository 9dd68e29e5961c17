"""The HTML report in a real browser: no console error, no network, tables that sort and filter."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import answered_inputs as answered
import frames
import pytest

from effattack.reporting.html import render

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --enable-logging=stderr --v=0"
)
LIGHT, DARK = (f"--blink-settings=preferredColorScheme={scheme}" for scheme in (1, 0))
HARNESS = """<!doctype html><title>harness</title>
<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{source}"></iframe>
<script>addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument;
  document.body.dataset.scroll = page.documentElement.scrollWidth;
  document.body.dataset.tables = page.querySelectorAll("table").length;
  document.body.dataset.page = getComputedStyle(page.body).backgroundColor;
}});</script>"""
"""The report in a frame of a given width, which a window may be unable to have."""

DRIVER = """
const table = document.querySelector("table.scores"), heads = [...table.tHead.rows[1].cells];
const column = heads.findIndex((head) => head.textContent.startsWith("Attacked"));
const read = () => [...table.tBodies].map((body) => [...body.rows].slice(1)
  .map((row) => Number(row.cells[column].dataset.value)).join(" ")).join(";");
const facts = document.body.dataset, button = heads[column].querySelector("button");
facts.before = read();
button.click(); facts.up = read(); facts.state = heads[column].getAttribute("aria-sort");
button.click(); facts.down = read();
button.click(); facts.again = read();
const field = document.querySelector("#scores input");
field.value = "ats slowdown"; field.dispatchEvent(new Event("input"));
const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
facts.shown = rows.filter((row) => !row.hidden).length;
facts.said = document.querySelector("#scores output").value;
const loaded = performance.getEntriesByType("resource");
facts.loaded = loaded.filter((one) => !one.name.startsWith("data:")).length;
"""
"""Sorts by the attacked MACs three times, then filters, and leaves what it saw on the body."""

Browse = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Open a page; returns its document after loading, and its console messages."""
    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next(filter(None, map(shutil.which, names)), None)
    if binary is None:
        pytest.skip(
            "NO BROWSER: the report was not looked at. Install one (Debian: apt-get install "
            f"chromium) so that one of {', '.join(names)} is on the PATH"
        )

    def run(source: str, *flags: str) -> tuple[str, list[str]]:
        path = tmp_path / "page.html"
        path.write_text(source, encoding="utf-8")
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [binary, *FLAGS.split(), profile, *flags, "--dump-dom", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return run


def report(victim: str = "digits_vit_ats", attack: str = "Slowdown") -> str:
    """A report on few images, with names of choice."""
    rows, meta = frames.samples(12), frames.meta()
    rows["victim"] = rows["victim"].replace("digits_vit_ats", victim)
    rows["attack"] = rows["attack"].replace("Slowdown", attack)
    meta["victims"][victim] = meta["victims"].pop("digits_vit_ats")
    return render(rows, frames.scores(rows), meta)


def framed(source: str, width: int) -> str:
    return HARNESS.format(width=width, source=html.escape(source))


def measured(document: str) -> dict[str, str]:
    body = re.search(r"<body([^>]*)>", document)
    assert body, document[:500]
    return dict(re.findall(r'data-(\w+)="([^"]*)"', body[1]))


def test_phone_and_light(browse: Browse) -> None:
    document, console = browse(framed(report(), 390), LIGHT)
    facts = measured(document)
    assert console == []
    assert int(facts["tables"]) == 4
    assert int(facts["scroll"]) <= 390
    assert facts["page"] == "rgb(251, 250, 248)"


def test_long_names_and_dark(browse: Browse) -> None:
    name = "A" + 60 * "VeryLong"
    document, console = browse(framed(report(victim=name, attack=name), 390), DARK)
    facts = measured(document)
    assert console == []
    assert int(facts["scroll"]) <= 390
    assert facts["page"] == "rgb(18, 22, 26)"


@pytest.mark.parametrize("name", sorted(answered.DRAWN))
def test_pictures_of_answers_are_allowed_and_fit(browse: Browse, name: str) -> None:
    source = render(*answered.DRAWN[name]())
    document, console = browse(framed(source, 390), DARK)
    assert console == []
    assert int(measured(document)["scroll"]) <= 390


def test_script_in_a_name_is_shown_not_run(browse: Browse) -> None:
    name = "<script>console.error('ran')</script><img src=x onerror=console.error(1)>"
    document, console = browse(report(victim=name, attack=name))
    assert console == []
    assert "&lt;script&gt;console.error('ran')" in document


def driven(source: str) -> str:
    """The page with a second script, which its policy is told to allow."""
    digest = base64.b64encode(hashlib.sha256(DRIVER.encode()).digest()).decode()
    allowed = source.replace("script-src '", f"script-src 'sha256-{digest}' '")
    return allowed.replace("</body>", f"<script>{DRIVER}</script></body>")


def test_tables_sort_and_filter_without_network(browse: Browse) -> None:
    document, console = browse(driven(report()))
    facts = measured(document)
    assert console == []
    victims = [[float(x) for x in part.split()] for part in facts["before"].split(";")]
    up = [[float(x) for x in part.split()] for part in facts["up"].split(";")]
    down = [[float(x) for x in part.split()] for part in facts["down"].split(";")]
    assert up == [sorted(values) for values in victims] != victims
    assert down == [sorted(values, reverse=True) for values in victims]
    assert facts["again"] == facts["before"]
    assert facts["state"] == "ascending"
    assert (facts["shown"], facts["said"]) == ("2", "1 of 30 rows"), "the victim's heading stays"
    assert facts["loaded"] == "0"


def test_no_other_script_runs(browse: Browse) -> None:
    smuggled = report().replace("</body>", "<script>document.title = 'ran'</script></body>")
    document, console = browse(smuggled)
    assert "<title>ran" not in document
    assert any("Content Security Policy" in line for line in console)


def test_console_errors_would_be_seen(browse: Browse) -> None:
    _, console = browse("<!doctype html><script>console.error('seen')</script>")
    assert any("seen" in line for line in console)
