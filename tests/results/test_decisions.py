"""What the frame keeps of the gates."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import LinearSaver, grey_images

from effattack.results.decisions import from_text, opened, to_text
from effattack.victim import audit

MASKS = st.dictionaries(st.text(max_size=8), st.lists(st.booleans(), min_size=1, max_size=70))


@given(MASKS)
def test_text_and_back(masks: dict[str, list[bool]]) -> None:
    decisions = {gate: torch.tensor(units) for gate, units in masks.items()}
    again = from_text(to_text(decisions))
    assert {gate: mask.tolist() for gate, mask in again.items()} == masks
    assert opened(decisions).tolist() == [sum(units) for units in masks.values()]


def test_the_audit_tells_what_each_image_decided() -> None:
    victim, images = LinearSaver(), grey_images(12)
    found = audit(victim, images)
    escalated = [bool(image["saver"].item()) for image in found.decisions]
    assert escalated == (found.macs > 32).tolist()
    assert len(set(escalated)) == 2, "both decisions must be among the images"
