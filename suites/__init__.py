"""Tests for your victim: its contract, and what an attacker can take back of its savings.

    pytest --pyargs effattack.suites --effattack-victim mypackage.models:build \
        --effattack-data images/ --effattack-fail-below savings_retained=0.6

``build()`` returns an ``effattack.Victim``. The data are a folder with one sub-folder of images per
class, an ``.npz`` with ``images`` and ``labels``, or ``module:factory`` of a callable that returns
both. Without --effattack-victim, every registered victim whose data come along is tested by the
suite of its family, and must not have moved since the baseline in ``reports/``.
"""
