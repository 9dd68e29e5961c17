"""The victims that come trained on scenes with questions: name -> factory, one per way to fuse,
the constant control of one, and one that counts.

Each is registered as an entry point of the group ``effattack.victims``. With ``trained=False`` a
factory builds what its recipe starts from.
"""

from __future__ import annotations

from effattack.models_zoo.files import stored_threshold, with_weights
from effattack.models_zoo.multimodal.counting import CountsProposals
from effattack.models_zoo.multimodal.fusion import (
    Best,
    CrossAttended,
    GatedFusion,
    OneSequence,
    Outliers,
    SelectedTokens,
    WritesAnswers,
)

DATA = "effattack.models_zoo.multimodal.questions"
KEPT = 8
"""Visual tokens that ``questions_selected`` keeps of a held-out scene, the mean."""


def questions_cross(trained: bool = True) -> CrossAttended:
    """Type A: four layers with cross-attention, each of which may answer."""
    name = "questions_cross"
    victim = CrossAttended(
        stored_threshold(name, trained), name=name, data=f"{DATA}:scored_questions"
    )
    return with_weights(victim, name, trained)


def questions_gated(trained: bool = True) -> GatedFusion:
    """Type B: four gated fusion layers between layers of text."""
    name = "questions_gated"
    return with_weights(GatedFusion(name=name, data=f"{DATA}:scored_questions"), name, trained)


def questions_selected(trained: bool = True) -> SelectedTokens:
    """Type C: visual tokens that stand out are read behind the question."""
    name = "questions_selected"
    victim = SelectedTokens(Outliers(), name=name, data=f"{DATA}:scored_questions")
    return with_weights(victim, name, trained)


def questions_fixed_ratio(trained: bool = True) -> SelectedTokens:
    """The constant control of type C: its weights, and as many tokens of every image."""
    victim = SelectedTokens(
        Best(KEPT), name="questions_fixed_ratio", data=f"{DATA}:scored_questions"
    )
    return with_weights(victim, "questions_selected", trained)


def questions_written(trained: bool = True) -> WritesAnswers:
    """Type D: one sequence, whose reader writes down the digits before it answers."""
    name = "questions_written"
    network = with_weights(OneSequence(), name, trained)
    return WritesAnswers(network, name=name, data=f"{DATA}:scored_conclusions")


def questions_counted(trained: bool = True) -> CountsProposals:
    """A component of type C: digits are counted among what the detector of scenes proposes."""
    name = "questions_counted"
    victim = CountsProposals(name=name, data="effattack.models_zoo.multimodal.crowds:scored_counts")
    return with_weights(victim, name, trained)
