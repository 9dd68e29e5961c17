"""A user's project for pytester: a victim, its data, and what can be wrong with them.

The victim is the linear saver of ``toys.py``. At 8/255 an attacker sends all of its images to the
base.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pandas as pd
import pytest

# pytester unloads what an in-process run was the first to import; torch and others do not stand
# being imported twice. So everything heavy is imported here.
pd.DataFrame().to_parquet(io.BytesIO())

Run = Callable[..., pytest.RunResult]

MODELS = """
    import torch
    from toys import LinearSaver, grey_images

    from effattack import Opaque, Trace, Victim

    def build():
        return LinearSaver(1.0, seed=1)

    def doubtful():
        return LinearSaver(4.0, seed=1)

    def vacuous():
        return LinearSaver(9.0, seed=1)

    def data():
        images = grey_images(8)
        return images, build()(images).argmax(1)

    def many():
        images = grey_images(24)
        return images, build()(images).argmax(1)

    def others():
        images = grey_images(12, seed=7)
        return images, build()(images).argmax(1)

    def doubles():
        images, labels = data()
        return images.double(), labels

    def small():
        return torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.long)

    def opaque():
        return Opaque(build(), (1, 4, 4), name="opaque")

    class Plain(Victim):
        def __init__(self):
            shape = {"input_shape": (1, 4, 4), "num_classes": 2}
            super().__init__(
                name="plain", family="fixed", max_macs=32, dense_macs=32, constant=True, **shape
            )
            self.layer = torch.nn.Linear(16, 2)
            self.eval()

        def forward(self, images):
            return self.layer(images.flatten(1))

        def trace(self, images):
            return Trace(self(images), (), torch.full((len(images),), 32, dtype=torch.float64))

    class Boastful(LinearSaver):
        def trace(self, images):
            trace = super().trace(images)
            return trace._replace(macs=trace.macs / 2)

    class Blind(LinearSaver):
        def margin(self, logits):
            return super().margin(logits).sign() + 0 * logits[:, 0]

    def broken():
        raise ValueError("no weights here")

    def model():
        return torch.nn.Linear(16, 2)
"""
QUICK = ("-p", "no:hypothesispytest", "-p", "no:cacheprovider")
SUITES = ("--pyargs", "effattack.suites.test_cascades")
OTHERS = ("--pyargs", "effattack.suites.test_other_mechanisms", "--effattack-attack=Slowdown")
BUILD, DATA = "--effattack-victim=models:build", "--effattack-data=models:data"


def project(pytester: pytest.Pytester) -> Run:
    """Make the project; returns what runs pytest in it, in this process."""
    pytester.makepyfile(models=MODELS)
    return lambda *arguments: pytester.runpytest_inprocess(*QUICK, *arguments)


def section(result: pytest.RunResult) -> str:
    """The plugin's part of the terminal summary; empty where it said nothing."""
    _, _, rest = "\n".join(result.outlines).partition(" effattack ====")
    return re.split(r"\n=+ ", rest)[0]
