"""Universal attacks: learnt on some images, applied to others, identified by what they learnt."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toys import LinearSaver, grey_images

import effattack
from effattack.attacks import UniversalSlowdown, build
from effattack.attacks.objectives import Step
from effattack.attacks.searches.projected import constant, cosine
from effattack.attacks.searches.training import Adam, Steepest, Training
from effattack.domains import Pixels
from effattack.errors import GradientError, UsageError
from effattack.inputs.source import held_out
from effattack.threats import L2, Linf
from effattack.victim import Trace
from effattack.victim.digests import attack_digest


def macs(victim: LinearSaver, images: Tensor) -> float:
    with torch.no_grad():
        return victim.trace(images).macs.sum().item()


@pytest.mark.parametrize("text", ["linf:8/255", "l2:0.1", "l1:0.4", "patch:2@1,1", "pixels:3"])
def test_it_raises_the_macs_of_what_it_was_fitted_on(text: str) -> None:
    victim, images = LinearSaver(), grey_images(40)
    logits = victim.saver(images.flatten(1))
    images = images[logits.argmax(1) == 0]  # one direction opens their gates
    attack = UniversalSlowdown(victim, threat=text, epochs=10).fit(images)
    found = attack(images)
    assert macs(victim, found) > macs(victim, images)
    assert not torch.equal(found, images)


def test_one_perturbation_for_all() -> None:
    victim = LinearSaver()
    images = grey_images(20)
    attack = UniversalSlowdown(victim, threat=L2(0.1), epochs=3).fit(images)
    assert attack.perturbation is not None
    assert attack.perturbation.shape == (1, 1, 4, 4)
    alone = torch.cat([attack(image) for image in images.split(1)])
    assert torch.equal(attack(images), alone)


def test_per_class_the_label_chooses() -> None:
    victim, images = LinearSaver(), grey_images(80)
    one, each = (
        UniversalSlowdown(victim, per_class=p, epochs=10).fit(images) for p in (False, True)
    )
    assert each.perturbation is not None
    assert len(each.perturbation) == 2
    fresh = grey_images(80, seed=1)
    assert macs(victim, each(fresh)) > max(macs(victim, one(fresh)), macs(victim, fresh))
    labels = torch.zeros(80, dtype=torch.long)
    assert not torch.equal(each(fresh, labels), each(fresh, labels + 1))


def test_a_class_it_has_not_seen_is_refused() -> None:
    attack = UniversalSlowdown(LinearSaver(), per_class=True, epochs=1)
    attack.fit(grey_images(4), torch.zeros(4, dtype=torch.long))
    attack(grey_images(4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(UsageError, match="without images of some of these classes"):
        attack(grey_images(4), torch.ones(4, dtype=torch.long))


def test_before_fit_it_says_so() -> None:
    with pytest.raises(UsageError, match=r"not fitted yet: call attack.fit\(images, labels\)"):
        UniversalSlowdown(LinearSaver())(grey_images(2))


def test_a_loader_is_as_good_as_a_tensor() -> None:
    images, labels = grey_images(10), torch.arange(10) % 2
    pairs = list(zip(images.split(4), labels.split(4), strict=True))
    first, second = (UniversalSlowdown(LinearSaver(), epochs=2) for _ in range(2))
    first.fit(images, labels)
    second.fit(iter(pairs))
    assert torch.equal(first.perturbation, second.perturbation)


def test_the_same_seed_learns_the_same_bits() -> None:
    made = [
        UniversalSlowdown(LinearSaver(), threat="patch:2", epochs=2, batch=4, seed=s)
        for s in (3, 3, 4)
    ]
    first, second, other = (attack.fit(grey_images(12)).perturbation for attack in made)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_its_digest_covers_what_it_learnt() -> None:
    attack, same = (UniversalSlowdown(LinearSaver(), epochs=2) for _ in range(2))
    assert attack_digest(attack) == attack_digest(same)
    unfitted = attack_digest(attack)
    attack.fit(grey_images(8)), same.fit(grey_images(8))
    assert attack_digest(attack) == attack_digest(same) != unfitted
    attack.perturbation = attack.perturbation + 1 / 255
    assert attack_digest(attack) != attack_digest(same)


def test_step_rules() -> None:
    pattern, slope = torch.zeros(1, 1, 1, 2), torch.tensor([[[[3.0, -0.1]]]])
    moved = Steepest(constant(0.5)).begin(Linf(8 / 255))(pattern, slope, 0.0)
    torch.testing.assert_close(moved, 4 / 255 * slope.sign())
    adam, reference = Adam(constant(0.1)).begin(Linf(1.0)), pattern.clone().requires_grad_()
    optimiser = torch.optim.Adam([reference], lr=0.1, maximize=True)
    for step in range(3):
        reference.grad = slope * (step + 1)
        optimiser.step()
        pattern = adam(pattern, slope * (step + 1), 0.0)
    torch.testing.assert_close(pattern, reference.detach())
    with pytest.raises(UsageError, match="epochs = 0"):
        Training(0, 8, Steepest(cosine(1.0)))


def test_fit_shows_its_steps_and_leaves_the_victim_alone() -> None:
    victim, steps = LinearSaver().train(), []

    def stop(step: Step) -> None:
        steps.append(step[:3])
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        UniversalSlowdown(victim, epochs=2, batch=4).fit(grey_images(8), callback=stop)
    assert steps == [(0, 0, 2), (0, 1, 2), (1, 0, 2)]
    assert victim.training
    assert all(p.requires_grad for p in victim.parameters())


def test_no_gradient_is_refused() -> None:
    class Deaf(LinearSaver):
        def trace(self, images: Tensor) -> Trace:
            return super().trace(images.detach())

    with pytest.raises(GradientError, match="gates saver"):
        UniversalSlowdown(Deaf()).fit(grey_images(4))


# in an evaluation


def test_evaluate_fits_on_what_is_held_out() -> None:
    victim, images = LinearSaver(), grey_images(24)
    labels = torch.arange(24) % 2
    scored, fit = (images[:12], labels[:12]), (images[12:], labels[12:])
    name = "UniversalSlowdown(epochs=2)"
    found = effattack.evaluate(victim, *scored, [name], timed=0, fit=fit).samples
    by_hand = build(name, victim).fit(*fit)(*scored)
    rows = found[found.attack == name]
    assert rows.macs.tolist() == victim.trace(by_hand).macs.tolist()
    given = build(name, victim)
    effattack.evaluate(victim, *scored, [given], timed=0, fit=fit)
    assert given.perturbation is None, "the user's own attack is left as it was"


def test_evaluate_refuses_what_was_not_held_out() -> None:
    victim, images, labels = LinearSaver(), grey_images(6), torch.arange(6) % 2
    with pytest.raises(UsageError, match=r"give images to learn from, fit=\(images, labels\)"):
        effattack.evaluate(victim, images, labels, ["UniversalSlowdown"], timed=0)
    fit = torch.cat([grey_images(3, seed=5), images[:1]]), labels[:4]
    with pytest.raises(UsageError, match="1 of the scored images"):
        effattack.evaluate(victim, images, labels, ["UniversalSlowdown"], timed=0, fit=fit)
    fitted = UniversalSlowdown(victim, epochs=1).fit(images, labels)
    with pytest.raises(UsageError, match="6 of the scored images"):
        effattack.evaluate(victim, images, labels, [fitted], timed=0)


def test_what_the_samples_leave_is_held_out() -> None:
    images, labels = grey_images(10), torch.arange(10)
    images[1] = images[0]
    rest = held_out(Pixels((1, 4, 4)), images, labels, 5)  # 0, 2, 4, 6, 8 are scored; 1 equals 0
    assert rest is not None
    assert rest[1].tolist() == [3, 5, 7, 9]
    assert held_out(Pixels((1, 4, 4)), images, labels, 10) is None
