"""Models as people have them: precisions, compiled and exported ones, and writing in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_traps import Returns
from torch import Tensor, nn
from toys import LinearSaver, grey_images, import_or_skip

from effattack import Opaque, audit, evaluate
from effattack.attacks import Slowdown, build
from effattack.attacks.base import Attack
from effattack.attacks.objectives import Goal
from effattack.domains import Pixels
from effattack.domains.pixels import to_grid
from effattack.errors import (
    ContractError,
    GradientError,
    LibraryError,
    MeasurementError,
    NotApplicable,
    UsageError,
)
from effattack.models_zoo import EarlyExit, TinySaver
from effattack.models_zoo.layer_skipping.skipnet import PooledGate, SkipNet
from effattack.results.limits import judge, parse_limit
from effattack.threats import Linf
from effattack.victim import Trace, Victim, margin_slack
from effattack.victim.checks import INVARIANTS, check_declared
from effattack.victim.rounding import on_knife_edge
from effattack.victim.twins import quantized
from effattack.victim.undisturbed import undisturbed

SHAPE = (1, 4, 4)
LABELS = torch.zeros(6, dtype=torch.long)


def plain(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, classes)).eval()


def exits(first: Callable[[], nn.Module] = nn.Identity) -> EarlyExit:
    """Two stages, the second beginning with ``first``."""
    torch.manual_seed(0)
    stages = [nn.Flatten(), nn.Sequential(first(), nn.Linear(16, 16))]
    heads = [nn.Sequential(nn.GELU(), nn.Linear(16, 3)) for _ in stages]
    return EarlyExit(stages, heads, 0.5, SHAPE, name="exits")


def scored(victim: Victim, images: Tensor, *attacks: str) -> list[Any]:
    found = evaluate(victim, images, LABELS[: len(images)], attacks, timed=0).scores()
    found = found[found.kind != "union"]
    return found[["attack", "accuracy", "agreement", "macs"]].values.tolist()


# precisions


@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_victim_is_scored_in_its_own_precision(dtype: torch.dtype, given: torch.dtype) -> None:
    images = grey_images(6)
    victim = LinearSaver().to(dtype)
    found = evaluate(victim, images.to(given), LABELS, ["Slowdown"], timed=0)
    assert found.scores().attack.tolist() == ["clean", "noise", "uniform", "Slowdown", "union"]
    clean = found.samples[found.samples.attack == "clean"]
    with torch.no_grad():
        expected = torch.cat([victim(image) for image in images.split(1)]).argmax(1)
    assert clean.prediction.tolist() == expected.tolist()
    assert clean.linf.max() == 0


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_contract_in_other_precisions(check: Any, dtype: torch.dtype) -> None:
    assert check(LinearSaver().to(dtype), grey_images(6)) == []


@pytest.mark.parametrize(
    ("dtype", "slack"), [(torch.float32, 1e-5), (torch.float16, 0.01), (torch.bfloat16, 0.05)]
)
def test_both_doors_speak_the_precision_of_the_images(dtype: torch.dtype, slack: float) -> None:
    victim, pixels = LinearSaver().to(dtype), grey_images(4).requires_grad_()
    trace, logits = victim.trace(pixels), victim(pixels)
    assert trace.dtype == dtype
    assert margin_slack(trace.dtype) == slack
    answers = [logits, trace.logits, trace.gates[0].margin]
    assert {answer.dtype for answer in answers} == {torch.float32}
    for answer in answers:
        (gradient,) = torch.autograd.grad(answer.sum(), pixels, retain_graph=True)
        assert gradient.dtype == torch.float32
    edges = (trace.gates[0].reached & (trace.gates[0].margin.abs() <= slack)).any(1)
    assert torch.equal(on_knife_edge(trace), edges)


class Autocast(LinearSaver):
    """Float32 weights that are multiplied in bfloat16."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            x = images.flatten(1)
            logits = self.saver(x)
        return logits

    def trace(self, images: Tensor) -> Trace:
        return super().trace(images)._replace(logits=self.forward(images))


def test_the_coarsest_precision_is_told() -> None:
    assert Autocast().trace(grey_images(2)).dtype == torch.bfloat16


def test_rows_on_knife_edges_are_not_judged() -> None:
    rows = pd.DataFrame(
        {
            "victim": "v",
            "attack": ["A", "union"],
            "kind": ["compute", "union"],
            "inside": True,
            "macs": 20.0,
            "clean_macs": 10.0,
            "max_macs": 100.0,
            "savings_retained": [0.9, 0.8],
            "constant": False,
            "knife_edge": [0.0, 0.06],
        }
    )
    limit = parse_limit("savings_retained=0.5", fail_below=True)
    with pytest.raises(MeasurementError, match=r"rounding took the decisions of 6% of its rows"):
        judge(rows, [limit])


class NoKernel(LinearSaver):
    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError("\"svd_cpu\" not implemented for 'Half'")


def test_a_kernel_that_torch_lacks_is_named() -> None:
    with pytest.raises(MeasurementError, match=r"toy: forward needs a kernel .*'Half'.*float\(\)"):
        NoKernel()(grey_images(1))


# compiled, exported, scripted, called


def exported(batch: int, **options: Any) -> nn.Module:
    return torch.export.export(plain(), (torch.zeros(batch, *SHAPE),), **options).module()


AS_PEOPLE_HAVE_THEM: dict[str, Callable[[], Any]] = {
    "function": lambda: plain().forward,
    "compiled": lambda: torch.compile(plain(), backend="eager"),
    "compiled function": lambda: torch.compile(plain().forward, backend="eager"),
    "exported for one image": lambda: exported(1),
    "exported": lambda: exported(2, dynamic_shapes=({0: torch.export.Dim("batch")},)),
    "exported, and wrapped": lambda: nn.Sequential(exported(1), nn.Identity()),
    "scripted": lambda: torch.jit.script(plain()),
    "traced": lambda: torch.jit.trace(plain(), torch.zeros(1, *SHAPE)),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(plain())),
    "symbolic": lambda: torch.fx.symbolic_trace(plain()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] if "compiled" in kind else [])
        for kind in AS_PEOPLE_HAVE_THEM
    ],
)
def test_opaque_takes_models_as_people_have_them(kind: str) -> None:
    attack = "QueryAttack(queries=3)"
    victim = Opaque(AS_PEOPLE_HAVE_THEM[kind](), SHAPE)
    images = grey_images(6)
    assert scored(victim, images, attack) == scored(Opaque(plain(), SHAPE), images, attack)
    assert victim.train().eval()(images).shape == (6, 3)


@pytest.mark.filterwarnings("ignore")
def test_convolutions_that_no_counter_sees_are_refused() -> None:
    optimised = torch.jit.optimize_for_inference(torch.jit.script(plain()))
    with pytest.raises(UsageError, match=r"optimize_for_inference.*no counter sees.*jit\.script"):
        Opaque(optimised, SHAPE)


def test_a_batch_that_is_fixed_is_refused() -> None:
    with pytest.raises(UsageError, match=r"does not run on one image.*dynamic batch dimension"):
        Opaque(exported(2), SHAPE)


def test_a_stage_that_was_exported() -> None:
    plain_one = exits(nn.ReLU)
    example, batch = torch.zeros(2, 16), torch.export.Dim("batch")
    graph = torch.export.export(plain_one.stages[1], (example,), dynamic_shapes=({0: batch},))
    stages, heads = [nn.Flatten(), graph.module()], list(plain_one.heads)
    victim = EarlyExit(stages, heads, 0.5, SHAPE, name="exits")
    images = grey_images(6)
    assert scored(victim, images, "Slowdown") == scored(plain_one, images, "Slowdown")


def test_models_made_under_inference_mode() -> None:
    with torch.inference_mode():
        victim = exits()
    images = grey_images(6)
    assert scored(victim, images, "Slowdown") == scored(exits(), images, "Slowdown")
    assert all(p.is_inference() for p in victim.parameters()), "it is left as it was"


# what cannot be scored


class Answers(LinearSaver):
    """Returns something else from one of its paths."""

    def __init__(self, path: str, answer: Any) -> None:
        super().__init__()
        self.path, self.answer = path, answer

    def forward(self, images: Tensor) -> Tensor:
        return self.answer if self.path == "forward" else super().forward(images)

    def trace(self, images: Tensor) -> Trace:
        return self.answer if self.path == "trace" else super().trace(images)


@pytest.mark.parametrize(
    ("path", "answer", "message"),
    [
        ("forward", None, "forward returned None: return plain logits"),
        ("forward", {}, "forward returned a dict: return plain logits"),
        ("trace", None, r"trace returned None: return effattack\.Trace"),
        ("trace", (1, 2, 3), r"trace returned a tuple: return effattack\.Trace"),
        ("trace", Trace(torch.zeros(2, 2), (1,), torch.zeros(2)), r"a tuple of effattack\.Gate"),  # type: ignore[arg-type]
        ("trace", Trace(None, (), torch.zeros(2)), "logits is no tensor"),  # type: ignore[arg-type]
    ],
)
def test_paths_that_answer_something_else(path: str, answer: Any, message: str) -> None:
    victim = Answers(path, answer)
    with pytest.raises(ContractError, match=message):
        check_declared(victim)


def test_weights_without_numbers_are_refused() -> None:
    with torch.device("meta"):
        hollow = plain()
    with pytest.raises(UsageError, match="meta device, which hold no numbers"):
        Opaque(hollow, SHAPE)
    victim = exits()
    victim.heads[0].to("meta")
    with pytest.raises(ContractError, match="meta device, which hold no numbers"):
        check_declared(victim)


def test_one_logit_is_two_classes() -> None:
    with pytest.raises(UsageError, match=r"stands for two classes: .*cat\(\[torch.zeros_like"):
        Opaque(plain(1), SHAPE)
    z = torch.tensor([[0.7]])
    two = torch.cat([torch.zeros_like(z), z], 1)
    torch.testing.assert_close(two.softmax(1)[:, 1:], z.sigmoid())


@pytest.mark.parametrize(
    ("dtype", "message"), [(torch.int64, "token ids are no images"), (torch.uint8, "by 255$")]
)
def test_whole_numbers_are_no_images(dtype: torch.dtype, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Pixels((16,)).check(torch.ones(2, 16, dtype=dtype))


@pytest.mark.parametrize("seeds", [np.arange(2), torch.arange(2), (0, 1)], ids=str)
def test_seeds_of_any_whole_type(seeds: Any) -> None:
    found = evaluate(LinearSaver(), grey_images(2), LABELS[:2], ["noise"], seeds=seeds, timed=0)
    assert found.samples.seed.unique().tolist() == [0, 1]


@pytest.mark.parametrize("seeds", [[0.5], 3, np.array([])])
def test_seeds_that_are_none(seeds: Any) -> None:
    with pytest.raises(UsageError, match=r"seeds = .*give"):
        evaluate(LinearSaver(), grey_images(2), LABELS[:2], ["noise"], seeds=seeds, timed=0)


# writing in place


class Writes(nn.Module):
    """Normalises its input, in place or not."""

    def __init__(self, how: Callable[[Tensor], Any] | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.how = nn.Linear(16, 3), how

    def forward(self, images: Tensor) -> Tensor:
        x = images - 0.5
        if self.how is not None:
            self.how(images)
        return self.layer(x.flatten(1))


WAYS: dict[str, Callable[[Tensor], Any]] = {
    "sub": lambda x: x.sub_(0.5),
    "zero": lambda x: x.zero_(),
    "view": lambda x: x.flatten(1)[:, 3:].mul_(0.1),
    "data": lambda x: x.data.add_(1),
    "numpy": lambda x: x.detach().numpy().fill(9),
    "index": lambda x: x.__setitem__((..., 0), 5.0),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "build_it",
    [
        lambda model: Opaque(model, SHAPE, name="mine"),
        lambda model: TinySaver(model, nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), 0.9, SHAPE),
    ],
    ids=["opaque", "cascade"],
)
def test_writing_into_the_input_changes_nothing(build_it: Any, way: str) -> None:
    images = grey_images(6)
    given = images.clone()
    torch.manual_seed(1)
    expected = scored(
        build_it(Writes(None)), images, "QueryAttack(queries=3)", "foolbox.LinfPGD(steps=3)"
    )
    torch.manual_seed(1)
    victim = build_it(Writes(WAYS[way]))
    assert scored(victim, given, "QueryAttack(queries=3)", "foolbox.LinfPGD(steps=3)") == expected
    audit(victim, given)
    assert torch.equal(given, images)


def test_writing_into_the_input_is_noticed() -> None:
    victim = Opaque(Writes(WAYS["numpy"]), SHAPE, name="mine")
    note = "mine: forward wrote into its input: copies were given"
    with pytest.warns(UserWarning, match=note):
        found = evaluate(victim, grey_images(2), LABELS[:2], [], timed=0)
    assert note in found.meta["notes"]
    assert check_declared(LinearSaver()) == []


class WritesWhileAttacking(Returns):
    def run(self, clean: Tensor, goal: Goal, generator: torch.Generator) -> Tensor:
        return clean.fill_(1.0)


def test_an_attack_that_writes_into_its_input_is_held_to_the_budget() -> None:
    attack = WritesWhileAttacking(LinearSaver(), torch.empty(0), Linf(8 / 255))
    with pytest.raises(MeasurementError, match="outside the budget"):
        attack(grey_images(2))


def in_place() -> nn.Module:
    return nn.ReLU(inplace=True)


def test_a_stage_that_begins_in_place() -> None:
    images = grey_images(6)
    expected = scored(exits(nn.ReLU), images, "Slowdown")
    assert scored(exits(in_place), images, "Slowdown") == expected


def test_a_skipped_block_that_begins_in_place() -> None:
    def skipping(first: nn.Module) -> SkipNet:
        torch.manual_seed(0)
        block = nn.Sequential(first, nn.Conv2d(4, 4, 3, padding=1))
        head = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        gate = PooledGate(4)
        stem = nn.Conv2d(1, 4, 3, padding=1)
        with torch.no_grad():
            gate.linear.bias.sub_(gate(stem(images)).median())
        return SkipNet(stem, [block], [gate], head, SHAPE)

    images = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))
    expected = skipping(nn.ReLU()).trace(to_grid(images))
    assert 0 < expected.gates[0].active.sum() < 6
    found = skipping(in_place()).trace(to_grid(images))
    assert torch.equal(found.logits, expected.logits)
    assert scored(skipping(in_place()), images, "Slowdown")


class InPlaceTrace(LinearSaver):
    """Writes over what the gradient of its own softmax needs."""

    def trace(self, images: Tensor) -> Trace:
        trace = super().trace(images)
        shares = trace.logits.softmax(1)
        twice = shares * shares
        shares.add_(1)
        return trace._replace(logits=trace.logits + twice - twice.detach())


@pytest.mark.parametrize("attack", ["CascadeAttack", "foolbox.LinfPGD"])
def test_gradients_that_break_in_place_are_told(attack: str) -> None:
    with pytest.raises(GradientError, match=r"changes in place .*use inplace=False"):
        evaluate(InPlaceTrace(), grey_images(2), LABELS[:2], [attack], timed=0)


# other libraries


class FromALibrary(Attack):
    """Fails in the code of torch."""

    def run(self, clean: Tensor, goal: Goal, generator: torch.Generator) -> Tensor:
        return nn.Linear(3, 3)(clean)


def test_errors_of_libraries_are_told() -> None:
    message = r"FromALibrary on toy, images of shape \(2, 1, 4, 4\): torch failed with RuntimeError"
    with pytest.raises(LibraryError, match=message):
        FromALibrary(LinearSaver())(grey_images(2))


def test_pixle_on_images_that_are_not_square() -> None:
    pytest.importorskip("torchattacks")
    victim = Opaque(nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 9, 3)), (3, 4, 9), name="wide")
    images = torch.rand(3, 3, 4, 9)
    message = r"torchattacks\.Pixle.* on wide, images of shape \(3, 3, 4, 9\): torchattacks failed"
    with pytest.raises(LibraryError, match=message):
        build("torchattacks.Pixle(threat='pixels:20')", victim)(images)


# int8


def int8_exits() -> EarlyExit:
    torchao = import_or_skip("torchao.quantization")
    victim = exits()
    torchao.quantize_(victim, torchao.Int8DynamicActivationInt8WeightConfig(version=2))
    return victim


def test_int8_with_early_exits_is_queried() -> None:
    victim = int8_exits()
    assert [row[0] for row in scored(victim, grey_images(6), "QueryAttack(queries=3)")][-1] == (
        "QueryAttack(queries=3)"
    )
    with pytest.raises(NotApplicable, match=r"has no gradient.*QueryAttack applies"):
        Slowdown(victim)


def test_the_weights_are_asked_for_a_twin_not_the_family() -> None:
    victim = int8_exits()
    victim.family = "my int8"
    assert quantized(victim)
    assert victim.in_float64() is None
    plain = LinearSaver()
    plain.family = "quantization"
    twin = plain.in_float64()
    assert twin is not None
    assert twin.dtype == torch.float64
    for check in INVARIANTS:
        check(victim, grey_images(6))


class CastsInside(LinearSaver):
    """Both paths compute in float32, whatever they are given."""

    def margin(self, logits: Tensor) -> Tensor:
        return super().margin(logits.float())


def test_there_is_no_twin_where_both_paths_cast() -> None:
    assert CastsInside().in_float64() is None


def test_inference_weights_are_put_back_after_an_exception() -> None:
    with torch.inference_mode():
        victim = exits()
    before = [id(p) for p in victim.parameters()]
    with pytest.raises(ZeroDivisionError), undisturbed(victim):
        raise ZeroDivisionError
    assert [id(p) for p in victim.parameters()] == before
