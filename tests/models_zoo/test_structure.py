"""What victims say they are made of does what they do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import SHAPE, embedded, noise_images

from effattack.inputs.source import load_data
from effattack.models_zoo import Cascade, EarlyExit, SkipNet
from effattack.models_zoo.criteria import Patience
from effattack.models_zoo.digits import SMALL
from effattack.models_zoo.exam.networks import skipping
from effattack.victim import Victim
from effattack.victim.structure import Exits, Models, Skips

CHAINS = {
    "digits_cnn_early_exit": ["exits.0", "exits.1", "exits.2"],
    "digits_cnn_sdn": ["exits.0", "exits.1", "exits.2"],
    "digits_msdnet": ["exits.0", "exits.1"],
    "digits_vit_exit": ["exits.0", "exits.1", "exits.2"],
    "digits_tinysaver_cascade": ["saver"],
    "digits_three_stage_cascade": ["escalate.0", "escalate.1"],
    "digits_esn": ["saver", "exits.0", "exits.1", "exits.2", "exits.3"],
    "exam_exit": ["exits.0", "exits.1"],
    "exam_cascade": ["escalate.0", "escalate.1"],
    "cbf_cnn_exit": ["exits.0", "exits.1", "exits.2"],
    "cbf_early_gru": ["steps"] * 15,
}


def follow(structure: Exits | Models, single: Tensor) -> tuple[Tensor, list[bool]]:
    """Answer (classes,) and decisions of one input, from the record alone."""
    match structure:
        case Exits():
            features = (single - structure.mean) / structure.std
            stages = list(zip(structure.stages, structure.heads, strict=True))
        case Models():
            features = single
            stages = [(nn.Identity(), model) for model in structure.models]
    seen, decisions = torch.empty(1, 0, 0), []
    for k, (stage, head) in enumerate(stages):
        features = stage(features)
        logits = head(features)[:, None]
        seen = logits if k == 0 else torch.cat([seen, logits], 1)
        if k == len(structure.gates):
            unsure = structure.unsure if isinstance(structure, Exits) else lambda z: z[:, -1]
            return unsure(seen)[0], decisions
        decisions.append(bool(structure.criterion.go_on(seen)))
        if not decisions[-1]:
            break
    return seen[0, -1], decisions


def followed(skips: Skips, single: Tensor) -> tuple[Tensor, list[bool]]:
    """Logits (1, classes) and decisions of one input, from the record of a skip network."""
    features, decisions = skips.stem(single), []
    for k, block in enumerate(skips.blocks):
        if k in skips.gated:
            gate = skips.gated[k]
            first, second = gate.scores(features)[0].sort(descending=True).values[:2].tolist()
            decisions.append(first - second < gate.least_lead)
        if k not in skips.gated or decisions[-1]:
            features = block(features)
    return skips.head(features), decisions


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_skip_networks_whose_gates_are_score_margins_have_one(threshold: float) -> None:
    torch.manual_seed(0)
    stem, blocks, gates, head = skipping([0.3, 0.2, 0.3])
    blocks, gates = [nn.ReLU(), *blocks], [None, *gates]
    victim = SkipNet(stem, blocks, gates, head, SMALL, threshold=threshold)
    skips = victim.structure()
    assert isinstance(skips, Skips)
    assert skips.gates == ("blocks.1", "blocks.2", "blocks.3")
    images, counts = noise_images(24, 0, SMALL), set()
    with torch.no_grad():
        for single in images.split(1):
            trace = victim.trace(single)
            logits, decisions = followed(skips, single)
            torch.testing.assert_close(logits, trace.logits)
            assert decisions == [gate.active.item() for gate in trace.gates]
            counts.add(sum(decisions))
    assert counts == {0} if threshold == 0.9 else len(counts) > 1


def expect_followed(victim: Victim, batch: Tensor) -> None:
    structure = victim.structure()
    assert structure is not None
    with torch.no_grad():
        for single in batch.split(1):
            trace = victim.trace(single)
            answer, decisions = follow(structure, single)
            torch.testing.assert_close(answer, trace.logits[0], rtol=1e-4, atol=1e-5)
            active = torch.cat([gate.active[0] for gate in trace.gates]).tolist()
            told = decisions[structure.criterion.earliest :]
            assert told + [False] * (len(active) - len(told)) == active


@pytest.mark.parametrize("name", CHAINS)
def test_the_record_of_an_embedded_victim_does_what_it_does(name: str) -> None:
    victim = embedded(name)
    assert list(victim.structure().gates) == CHAINS[name]
    expect_followed(victim, load_data(None, victim)[0][:24])


def test_answers_where_no_stage_stopped_and_normalisation_are_in_it() -> None:
    torch.manual_seed(0)
    stages = [nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 16)]
    heads = [nn.Linear(16, 3) for _ in stages]
    settings = {"mean": [0.5], "std": [0.1]}

    class Loudest(EarlyExit):
        def unsure(self, stage_logits: Tensor) -> Tensor:
            return stage_logits.amax(1)

    victim = Loudest(stages, heads, 0.6, SHAPE, **settings)
    with torch.no_grad():
        depths = victim.trace(noise_images(24, 0, SHAPE)).gates[-1].active
    assert 0 < depths.sum() < 24
    expect_followed(victim, noise_images(24, 0, SHAPE))


def test_gates_that_are_no_decisions_stay_in_the_record() -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Flatten(), nn.Linear(16, 2)) for _ in range(4)]
    victim = Cascade(models, Patience(1), SHAPE)
    structure = victim.structure()
    assert (len(structure.gates), structure.criterion.earliest) == (3, 1)
    expect_followed(victim, noise_images(12, 0, SHAPE))


@pytest.mark.parametrize("name", ["digits_vit_ats", "digits_skipnet", "cbf_transformer_merge"])
def test_what_is_no_chain_has_none(name: str) -> None:
    assert embedded(name).structure() is None
