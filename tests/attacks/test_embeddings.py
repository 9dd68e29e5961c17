"""What moving embeddings reaches: inside its ball, beyond random points, and no row of a table."""

from __future__ import annotations

import pytest
import torch
from prompts import Decoder
from torch import Generator, Tensor
from toys import LinearSaver

from effattack import attacks
from effattack.attacks.embeddings import Ball, off_text
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo.generation import embedded, sums
from effattack.models_zoo.generation.generator import Generator as Generates

PROMPTS = sums.sums("heldout")[0][:6]


def passes(victim: Generates, prompts: Tensor) -> Tensor:
    with torch.no_grad():
        return victim.spent(victim.trace(prompts))


def test_every_token_stays_in_its_ball() -> None:
    victim = embedded.sums_lm()
    ball = Ball.around(victim, PROMPTS, 0.5)
    norms = victim.network.words.weight.detach().norm(dim=1)
    assert ball.radius == pytest.approx(float(norms.mean()) / 2)
    drawn = ball.drawn(Generator().manual_seed(0))
    assert torch.allclose(drawn.norm(dim=2), torch.tensor(ball.radius))
    far = ball.inside(3 * drawn)
    assert torch.allclose(far, drawn, atol=1e-6)
    assert torch.allclose(ball.inside(0.2 * drawn), 0.2 * drawn)
    assert not ball.along(torch.zeros_like(drawn), 0.3).any()


def test_rows_that_did_not_move_are_the_prompts() -> None:
    victim = embedded.sums_lm()
    ball = Ball.around(victim, PROMPTS, 0.5)
    still = ball.trace(victim, torch.zeros_like(ball.rows))
    assert torch.equal(still.logits, victim(PROMPTS))


@pytest.mark.slow
def test_a_search_goes_further_than_random_points_of_equal_effort() -> None:
    victim = embedded.sums_lm()
    found = off_text(victim, PROMPTS, share=0.5, steps=8)
    assert torch.equal(found.clean, passes(victim, PROMPTS))
    assert (found.searched >= found.clean).all()
    assert (found.random >= found.clean).all()
    assert found.searched.mean() > found.random.mean() + 3
    assert (found.searched <= found.ceiling).all()
    assert str(found).startswith("rows that no text has, means: clean ")
    again = off_text(victim, PROMPTS, share=0.5, steps=8)
    assert all(map(torch.equal, found, again)), "the same seed reaches the same"


@pytest.mark.slow
def test_a_wider_ball_reaches_further() -> None:
    """Of one step only the centre is judged."""
    victim = embedded.sums_lm()
    one = off_text(victim, PROMPTS, steps=1)
    assert torch.equal(one.searched, one.clean)
    near, far = (off_text(victim, PROMPTS, share=share, steps=8) for share in (0.05, 1.0))
    assert far.searched.sum() > near.searched.sum()


def test_it_is_no_attack() -> None:
    """Frames, unions and baselines are made of attacks; it cannot be named as one."""
    with pytest.raises(UsageError, match=r"off_text is .*, no class of effattack.attacks.Attack"):
        attacks.build("effattack.attacks.embeddings:off_text", Decoder())


def test_what_cannot_be_moved_is_refused() -> None:
    with pytest.raises(NotApplicable, match="takes images, which have no embeddings"):
        off_text(LinearSaver(), torch.zeros(1, 3, 4, 4))
    for wrong in ({"share": 0.0}, {"share": float("nan")}, {"steps": 0}):
        with pytest.raises(UsageError, match="give positive numbers"):
            off_text(Decoder(), PROMPTS, **wrong)
