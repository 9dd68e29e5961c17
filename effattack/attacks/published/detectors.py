"""Daedalus, Phantom Sponges, Overload and SlowTrack: published losses on detectors.

All see the boxes before non-maximum suppression (NMS), :mod:`effattack.victim.proposing`, and climb
by projected gradient in a budget, at equal effort. Of a two-stage detector these are the boxes of
its first stage. Equations and settings are those of the code that is named, where the text of a
paper may say otherwise.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from effattack.attacks.base import GradientAttack
from effattack.attacks.house.slowdown import house_search
from effattack.attacks.objectives import Objective
from effattack.attacks.published.detectors_losses import (
    ManySmallAndKept,
    NotYetHandedOn,
    SureAndSmall,
    TracksToBe,
)
from effattack.attacks.searches.attention import Attentive
from effattack.attacks.searches.projected import ProjectedGradient, constant
from effattack.attacks.searches.training import Steepest, Training
from effattack.attacks.universal import UniversalAttack


class Daedalus(GradientAttack):
    """Every box sure, and too small to overlap another: Daedalus' loss, under our search.

    Wang et al., "Daedalus: Breaking Non-Maximum Suppression in Object Detection via Adversarial
    Examples", 2019 (arXiv 1902.02067); official code NeuralSec/Daedalus-attack, commit 47e764b,
    ``l2_yolov3.py``: its f₃, the loss that the authors use,
    :class:`.detectors_losses.SureAndSmall`.

    Divergences: a budget and projected gradient with momentum (theirs: C&W, Adam at .01 in the
    space of tanh, up to 10,000 steps for each of 5 constants, least l2 distance at which the loss
    has fallen by 30 %); boxes of all classes (theirs: by default those of "person"); the best
    iterate by executed work is returned. f₁ (mean overlap) and f₂ (f₃ and distances) are not there.

    Args:
        victim: a detector that shows its proposals.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget in place of ``eps``.
        steps: gradient evaluations.
        seed: of the random start.

    Raises:
        NotApplicable: for a victim that shows no boxes before NMS.
    """

    takes = "arrays or parts"

    steps: int = 50

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        return SureAndSmall(), house_search(self.steps)


class PhantomSponges(GradientAttack):
    """More boxes above the threshold, smaller ones: Phantom Sponges' loss, for each image its own.

    Shapira et al., "Phantom Sponges: Exploiting Non-Maximum Suppression to Attack Deep Object
    Detectors", WACV 2023 (arXiv 2205.13618); official code AvishagS422/PhantomSponges, commit
    db17e35: :class:`.detectors_losses.ManySmallAndKept`. Its notebook sets λ₁ = 1 and λ₂ = 10, so
    that the term that keeps what was found, weighted 1 − λ₁, has no weight.

    Divergences: the paper's attack is universal, :class:`UniversalPhantomSponges`; scores are those
    of the best class (theirs: of "car", of boxes whose best class is below the threshold); the
    threshold is the victim's own (theirs: .25); what was found is looked for among all proposals
    (theirs: those that outlive NMS), whatever their class where a first stage names none; terms are
    those of each image, not of a batch.

    Args:
        victim, eps, threat, steps, seed: see :class:`Daedalus`.
        many: λ₁, of boxes below the threshold; 1 − λ₁ is the weight of what was found.
        small: λ₂, of the area of those above.

    Raises:
        NotApplicable: for a victim that shows no boxes before NMS.
    """

    takes = "arrays or parts"

    steps: int = 50
    many: float = 1.0
    small: float = 10.0

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        return ManySmallAndKept(self.many, self.small), house_search(self.steps)


class UniversalPhantomSponges(UniversalAttack):
    """``PhantomSponges``' loss for one perturbation of all images, as in the paper.

    From zero, along signs of the gradient of eight images at once, as in the official code.

    Divergences, beside those of the loss: a budget of any form, l-inf by default (theirs: l2 of 70
    on 640 x 640, .063 per value if spread evenly); darker, too (theirs: only brighter, as the
    perturbation is clipped to [0, 1]); the state with most executed work is kept (theirs: the least
    loss on validation images, within 70 epochs); images are not augmented, and one model is learnt
    on (theirs: one, or three drawn in turn).

    Args:
        victim: a detector that shows its proposals.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget in place of ``eps``.
        epochs: passes over the images that it is fitted on.
        batch: images of one step.
        step_size: as a share of the budget; .016 is theirs, .0005, of 8/255.
        many, small: see :class:`PhantomSponges`.
        seed: of the order of the batches and the places of a patch.

    Raises:
        NotApplicable: for a victim that shows no boxes before NMS.
    """

    epochs: int = 20
    batch: int = 8
    step_size: float = 0.016
    many: float = 1.0
    small: float = 10.0

    def composed(self) -> tuple[Objective, Training]:
        training = Training(self.epochs, self.batch, Steepest(constant(self.step_size)))
        return ManySmallAndKept(self.many, self.small), training

    def first(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return torch.zeros(shape)


class Overload(GradientAttack):
    """Boxes below the threshold are pushed over it, with larger steps where an image holds least.

    Chen et al., "Overload: Latency Attacks on Object Detection for Edge Devices", CVPR 2024 (arXiv
    2304.05370). No code of the paper's was found; loss and spatial attention are those that were
    given to the Adversarial Robustness Toolbox (ART), commit 5e830d6,
    ``art/attacks/evasion/overload``: :class:`.detectors_losses.NotYetHandedOn`, and signed steps of
    1/255 in the cell of a grid of 10 x 10 with the fewest boxes, of half of that elsewhere,
    :class:`.searches.attention.Attentive`. ART's tests take ε = 16/255 and 10 steps.

    Divergences: scores of the best class (ART: summed over classes, those above the threshold
    counting 1); in a batch each image has its own weights (ART divides them anew for every image,
    so they vanish in batches of more than one); cells cover all of an image, and rows are rows (ART
    leaves a rest out, and takes rows for columns); the best iterate by executed work is returned,
    not the last. Other code names other growing functions of the score for the paper, such as tanh.

    Args:
        victim, eps, threat, steps: see :class:`Daedalus`.
        step_size: in the chosen cell, as a share of the budget; .125 is ART's, 1/255, of 8/255.
        grid: cells along either side.
        seed: of no influence: it starts from the clean image.

    Raises:
        NotApplicable: for a victim that shows no boxes before NMS.
        UsageError: for a grid without cells.
    """

    takes = "arrays or parts"

    steps: int = 50
    step_size: float = 0.125
    grid: int = 10

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        schedule = constant(self.step_size)
        search = Attentive(self.steps, schedule, grid=self.grid, random_start=False)
        return NotYetHandedOn(), search


class SlowTrack(GradientAttack):
    """The terms of SlowTrack that one frame has: all boxes sure, and small, under our search.

    Ma et al., "SlowTrack: Increasing the Latency of Camera-Based Perception in Autonomous Driving
    Using Adversarial Examples", AAAI 2024 (arXiv 2312.09520); official code ershang2/SlowTrack,
    commit 1ca98c2, ``yolox/evaluators/single_attack.py`` and ``stra_attack.py``:
    :class:`.detectors_losses.TracksToBe`.

    What of tracking is left out: the score of two frames in a row, as a tracker asks for a second
    sight; the stripe of a frame, one of 15, that wanders from frame to frame, so that boxes meet no
    track and tracks pile up until they are forgotten (here the stripe is the whole frame); and the
    term by which features of boxes are not to match those of tracks, which others report of the
    paper and that code does not hold.

    Divergences: score and area together, which the code takes in two files; a budget and projected
    gradient with momentum (theirs: 220 to 400 steps of Euclidean length 1.5, without a budget); the
    area as a share of the image (theirs: of 640 x 640); the best iterate by executed work.

    Args:
        victim, eps, threat, steps, seed: see :class:`Daedalus`.
        sure: weight of the scores.
        small: of the areas.

    Raises:
        NotApplicable: for a victim that shows no boxes before NMS.
    """

    takes = "arrays or parts"

    steps: int = 50
    sure: float = 11.0
    small: float = 100.0

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        return TracksToBe(self.sure, self.small), house_search(self.steps)
