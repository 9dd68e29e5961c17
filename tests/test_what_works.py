"""The page of what works: every row is tried as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from effattack import evaluate
from effattack.errors import EffattackError

PAGE = (Path(__file__).parent.parent / "docs" / "what_works.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| `(.+?)` \| (scored|refused: .+?) \|$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the code of the page defines."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)
    return found


def test_the_page_has_rows() -> None:
    assert len(ROWS) == PAGE.count("\n| ") - 1, "a row of another form is tried by nobody"


@pytest.mark.parametrize(("what", "code", "told"), ROWS, ids=[what for what, _, _ in ROWS])
@pytest.mark.filterwarnings("ignore")
def test_what_works(what: str, code: str, told: str, names: dict[str, Any]) -> None:
    images = torch.randint(0, 256, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0)) / 255

    def scored() -> Any:
        victim = eval(code, names)
        return evaluate(victim, images, torch.zeros(2, dtype=torch.long), ["noise"], timed=0)

    if told == "scored":
        assert (scored().samples.macs > 0).all()
        return
    with pytest.raises(EffattackError, match=re.escape(told.removeprefix("refused: "))):
        scored()
