"""Linear bounds: never below what an input does, and exactly that where a network is linear."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from toys import embedded

from effattack.attacks import Slowdown
from effattack.certify.exact import exact
from effattack.certify.linear import Bounds, Box, box_of, linear_bounds
from effattack.certify.rounding import gamma
from effattack.certify.rows import of_whole
from effattack.certify.traced import At, Network
from effattack.domains import Pixels
from effattack.errors import NotApplicable
from effattack.inputs.source import load_data
from effattack.models_zoo.criteria import Confidence, Entropy, Leads, Margin, Patience
from effattack.models_zoo.digits import digits
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.threats import Threat, parse_threat
from effattack.victim import load_victim

DOMAIN = Pixels((2, 7, 6))


class Block(nn.Module):
    """All that is understood, with a residual sum whose branches see windows of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, groups=2), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.next = nn.Conv2d(4, 5, (3, 2), (2, 1), (1, 0))
        self.alpha = nn.Parameter(torch.tensor(0.3))

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        features = (features + self.body(features)).relu()
        mixed = self.alpha * F.max_pool2d(features, 2) + (1 - self.alpha) * F.avg_pool2d(
            features, 2
        )
        return torch.relu(self.next(mixed))


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    head = [nn.Flatten(), nn.Linear(20, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 3)]
    model = nn.Sequential(Block(), *head).eval()
    norm = model[0].first[1]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return model


def bounds_of(model: nn.Module, image: Tensor, threat: Threat) -> tuple[Bounds, int]:
    found = Network(DOMAIN.shape)
    last = found.grow(model, At(0)).number
    return Bounds(found.steps, box_of(image.double(), threat.on(DOMAIN)), torch.float32), last


def cube(centre: Tensor, radius: float) -> Box:
    return Box(
        centre.double(),
        torch.full_like(centre, radius).double(),
        lambda values: values.abs().sum((-3, -2, -1)),
    )


@pytest.mark.parametrize("threat", ["linf:4/255", "linf:40/255", "l2:.3", "l1:2"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_no_input_of_the_threat_leaves_the_bounds(threat: str, seed: int) -> None:
    model = network(seed)
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(DOMAIN.shape, generator=generator)
    bound = parse_threat(threat).on(DOMAIN)
    bounds, last = bounds_of(model, image, parse_threat(threat))
    low, high = (each.flatten() for each in bounds.between(last))
    many = image.expand(200, -1, -1, -1)
    tried = [image[None], bound.project(bound.start(many, generator), many)]
    corners = many + bound.reach * torch.randn(many.shape, generator=generator).sign()
    tried.append(bound.project(corners, many))
    logits = model(torch.cat(tried)).double()
    assert (logits >= low).all()
    assert (logits <= high).all()
    top = int(logits[0].argmax())
    lead = bounds.behind(last, top)
    assert (logits[:, [top]] - logits >= lead - 1e-12).all()


def test_windows_lead_back_what_whole_maps_do() -> None:
    """Bounds of every value of a map, as one window each, equal those of one function at a time."""
    model = network(0)[0]
    bounds, last = bounds_of(model, torch.rand(DOMAIN.shape), parse_threat("linf:8/255"))
    channels, height, width = bounds.steps[last].shape
    low, _ = bounds.between(last)
    flat = torch.eye(channels * height * width).double()
    alone = bounds._least(last, of_whole(flat, (channels, height, width)))[0]
    torch.testing.assert_close(low.flatten(), alone - bounds._slack(last).flatten())


@pytest.mark.parametrize(
    ("threat", "dual"), [("linf:8/255", 1), ("l2:.25", 2), ("l1:1", torch.inf)]
)
def test_of_a_linear_network_the_bound_is_the_dual_norm(threat: str, dual: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(126, 3)).double()
    image = torch.full(DOMAIN.shape, 0.5, dtype=torch.float64, requires_grad=True)
    bounds, last = bounds_of(model, image.detach(), parse_threat(threat))
    low, high = bounds.between(last)
    for k in range(3):
        (slope,) = torch.autograd.grad(model(image[None])[0, k], image, retain_graph=True)
        moved = parse_threat(threat).eps * slope.flatten().norm(p=dual)
        value = model(image[None])[0, k]
        assert low[k].item() == pytest.approx((value - moved).item(), abs=2e-4)
        assert low[k] < value - moved
        assert high[k] > value + moved


def test_one_rectifier_has_the_bounds_of_its_triangle() -> None:
    """x in [-1, 3] through ReLU: at most (3 / 4)(x + 1), at least x."""
    found = Network((1, 1, 1))
    last = found.grow(nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU()), At(0))
    conv = found.steps[1]
    conv.weight.fill_(1.0)
    box = Box(
        torch.ones(1, 1, 1).double(),
        torch.full((1, 1, 1), 2.0).double(),
        lambda v: v.abs().sum((-3, -2, -1)),
    )
    low, high = Bounds(found.steps, box, torch.float64).between(last.number)
    assert low.item() == pytest.approx(-1)
    assert high.item() == pytest.approx(3)


def test_rounding_of_float32_is_inside() -> None:
    """A sum whose terms cancel: the deployed network is off, and the bounds of a point know it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(84, 3))
    with torch.no_grad():
        model[1].weight[:, ::2] = -model[1].weight[:, 1::2]
        model[1].weight *= 1e6
    image = torch.full(DOMAIN.shape, 0.7)
    point = Box(
        image.double(), torch.zeros(DOMAIN.shape).double(), lambda v: v.abs().sum((-3, -2, -1))
    )
    found = Network(DOMAIN.shape)
    last = found.grow(model, At(0)).number
    low, high = (each.flatten() for each in Bounds(found.steps, point, torch.float32).between(last))
    deployed = model(image[None])[0].double()
    assert (low < deployed).all()
    assert (deployed < high).all()
    terms = model[1].weight.double().abs().sum(1) * 0.7 + model[1].bias.double().abs()
    torch.testing.assert_close(high - low, 2 * gamma(85, torch.float32) * terms, rtol=1e-4, atol=0)


@given(
    lead=st.lists(st.floats(-3, 12), min_size=2, max_size=6),
    more=st.floats(0, 3),
    threshold=st.floats(0.05, 0.99),
)
def test_what_surely_stops_stops(lead: list[float], more: float, threshold: float) -> None:
    at_least = torch.tensor([0.0, *lead]).double()
    for criterion in (Confidence(threshold), Margin(threshold)):
        assert isinstance(criterion, Leads)
        if criterion.surely_stops(at_least, 0, 1e-6):
            for each in range(1, len(at_least)):
                logits = -at_least.clone()
                logits[each] -= more
                assert not criterion.go_on(logits[None, None]).item()


def small_exits(criterion: object = 0.6, seed: int = 0) -> EarlyExit:
    torch.manual_seed(seed)
    stages = [
        nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 8, 3, 1, 1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()),
    ]
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(size * 12, 3)) for size in (4, 8, 8)]
    with torch.no_grad():
        for head in heads:
            head[1].weight *= 8
    return EarlyExit(stages, heads, criterion, domain=DOMAIN)


@given(seed=st.integers(0, 10**6), eps=st.sampled_from([1, 4, 12]))
@settings(max_examples=20, deadline=None)
def test_no_attack_ends_above_a_certificate(seed: int, eps: int) -> None:
    victim = small_exits(seed=seed)
    images = torch.rand(4, *DOMAIN.shape, generator=torch.Generator().manual_seed(seed))
    images = DOMAIN.snap(images)
    found = linear_bounds(victim, images, parse_threat(f"linf:{eps}/255"))
    attacked = Slowdown(victim, eps / 255, steps=10)(images, torch.zeros(4, dtype=torch.long))
    spent = victim.trace(attacked).macs
    assert (spent <= found.most).all()
    assert (found.most >= found.clean).all()
    assert (found.most <= found.ceiling).all()


def test_a_tiny_threat_certifies_what_the_clean_images_do() -> None:
    victim = small_exits(seed=3)
    images = DOMAIN.snap(torch.rand(12, *DOMAIN.shape))
    found = linear_bounds(victim, images, parse_threat("l2:1/255"))
    assert found.known.any()
    assert found.certified_retained > 0.5
    assert found.error == 0


@pytest.mark.parametrize("name", ["exam_exit", "exam_cascade"])
def test_no_exact_optimum_lies_above_a_certificate(name: str) -> None:
    victim = embedded(name)
    images = load_data(None, victim)[0][:4]
    threat = parse_threat("linf:.04")
    bound, optimum = linear_bounds(victim, images, threat), exact(victim, images, threat)
    assert (bound.most >= optimum.most).all()
    assert bound.certified_retained > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_cnn_early_exit", "digits_cnn_sdn"])
def test_embedded_victims_keep_what_is_certified(name: str) -> None:
    victim = embedded(name)
    images, labels = (part[:4] for part in digits("test"))
    found = linear_bounds(victim, images, parse_threat("linf:1/255"))
    attacked = Slowdown(victim, 1 / 255)(images, labels)
    assert (victim.trace(attacked).macs <= found.most).all()


@pytest.mark.parametrize(
    ("victim", "threat", "told"),
    [
        (lambda: small_exits(Entropy(0.5)), "linf:1/255", "surely_stops, such as Confidence"),
        (lambda: small_exits(Patience(1)), "linf:1/255", "Patience"),
        (small_exits, "patch:2", "linf, l2 and l1"),
        (lambda: load_victim("digits_vit_ats"), "linf:1/255", "EarlyExit, SDN, Cascade"),
        (lambda: load_victim("digits_msdnet"), "linf:1/255", "do not understand cat"),
    ],
)
def test_what_is_not_covered_hears_what_is(victim: object, threat: str, told: str) -> None:
    model = victim()  # type: ignore[operator]
    images = torch.zeros(1, *model.input_shape)
    with pytest.raises(NotApplicable, match=told):
        linear_bounds(model, images, parse_threat(threat))
