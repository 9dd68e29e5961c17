"""Caps: exact, and silent on savings unless a victim without the cap is named."""

from __future__ import annotations

import math

import pytest
import torch
from prompts import TokenExits, some_prompts
from toys import LinearSaver, grey_images

from effattack.certify.caps import caps
from effattack.errors import NotApplicable, UsageError
from effattack.threats import parse_threat
from effattack.victim import Opaque


def test_the_factor_is_ceiling_over_clean() -> None:
    victim, prompts = TokenExits(), some_prompts(6)
    found = caps(victim, prompts, parse_threat("suffix:2"))
    longer = parse_threat("suffix:2").on(victim.domain).largest(prompts)
    assert torch.equal(found.most, victim.ceiling(longer))
    clean = victim.trace(prompts).macs.sum().item()
    assert found.certified_factor == pytest.approx(found.most.sum().item() / clean)
    assert math.isnan(found.certified_retained)
    assert found.error == 0


def test_savings_are_those_against_a_named_victim_without_the_cap() -> None:
    capped, free, images = LinearSaver(), LinearSaver(), grey_images(6)
    free.max_macs = 1000
    found = caps(capped, images, parse_threat("linf:1/255"), uncapped=free)
    clean = capped.trace(images).macs
    kept = (6 * 1000 - 6 * 176) / (6 * 1000 - clean.sum().item())
    assert found.certified_retained == pytest.approx(kept)
    with pytest.raises(UsageError, match="takes other inputs"):
        caps(capped, images, parse_threat("linf:1/255"), uncapped=TokenExits())


def test_a_victim_without_a_ceiling_has_no_cap() -> None:
    opaque = Opaque(LinearSaver(), (1, 4, 4))
    with pytest.raises(NotApplicable, match="give the victim max_macs"):
        caps(opaque, grey_images(2), parse_threat("linf:1/255"))
