"""Any other mechanism: your own family, or a model that cannot be opened.

Nothing is known of how it saves, so it is held to what every victim is held to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import Suite, apart, attacked, pytest_generate_tests
from effattack.suites.test_cascades import TestCascades as _Cascades
from effattack.suites.test_detection import TestDetection as _Detection
from effattack.suites.test_early_exit import TestEarlyExit as _EarlyExit
from effattack.suites.test_generation import TestGeneration as _Generation
from effattack.suites.test_layer_skipping import TestLayerSkipping as _LayerSkipping
from effattack.suites.test_matching import TestMatching as _Matching
from effattack.suites.test_quantized import TestQuantized as _Quantized
from effattack.suites.test_token_sparsification import TestTokenSparsification as _Tokens

if TYPE_CHECKING:
    from effattack.victim import Victim

__all__ = ["attacked", "pytest_generate_tests"]

OF_FAMILIES = (
    _Cascades,
    _Detection,
    _EarlyExit,
    _Generation,
    _LayerSkipping,
    _Matching,
    _Quantized,
    _Tokens,
)
KNOWN = {suite.family for suite in OF_FAMILIES}


@pytest.mark.effattack(victims=[])
class TestOtherMechanisms(Suite):
    def covers(self, victim: Victim) -> bool:
        return victim.family not in KNOWN and not apart(victim)
