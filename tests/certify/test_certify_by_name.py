"""Certificates by kind."""

from __future__ import annotations

import pytest
from prompts import TokenExits, some_prompts
from toys import LinearSaver, grey_images

from effattack.certify.by_name import certify, maker
from effattack.certify.kinds import KINDS
from effattack.errors import NotApplicable, UsageError
from effattack.victim import Opaque
from effattack.victim.smoothed import Smoothed


def test_every_kind_can_be_made() -> None:
    for kind in KINDS:
        assert callable(maker(kind))


def test_auto_takes_the_first_kind_that_applies() -> None:
    assert certify(TokenExits(), some_prompts(3), "swap:1").kind == "enumeration"
    assert certify(TokenExits(), some_prompts(3), "swap:1", most=5).kind == "cap"
    smoothed = Smoothed(LinearSaver(), 0.1)
    assert certify(smoothed, grey_images(3), "l2:.1", samples=100).kind == "smoothing"


def test_what_no_kind_covers_is_said_with_what_each_does() -> None:
    with pytest.raises(NotApplicable, match=r"no certificate covers.*smoothing: .*cap: "):
        certify(Opaque(LinearSaver(), (1, 4, 4)), grey_images(2), "linf:1/255")
    with pytest.raises(UsageError, match=r"unknown certificate 'smoothin'.*smoothing"):
        certify(LinearSaver(), grey_images(2), "linf:1/255", kind="smoothin")
    with pytest.raises(UsageError, match=r"'sample'.*samples"):
        certify(LinearSaver(), grey_images(2), "linf:1/255", kind="smoothing", sample=3)
    with pytest.raises(UsageError, match="sample is an option of no certificate"):
        certify(LinearSaver(), grey_images(2), "linf:1/255", sample=3)
