"""Official checkpoints: one line each, by path; refused with the reason where they do not fit."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from parity import golden, relative
from torch import Tensor

import effattack.models_zoo as zoo
from effattack import Victim
from effattack.errors import UsageError
from effattack.models_zoo import AViT, read_checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"


def deit(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """As DeiT's training script and its descendants save: A-ViT, DynamicViT, EViT."""
    return {"model": state, "epoch": 299, "args": Namespace(lr=5e-4), "model_ema": state}


def averaged(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """As timm's saver does in AdaViT: the averaged weights count."""
    wrong = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
    return {"arch": "ada", "state_dict": wrong, "state_dict_ema": state, "args": Namespace()}


def parallel(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """As MSDNet-PyTorch does, through DataParallel."""
    named = {f"module.{key}": tensor for key, tensor in state.items()}
    return {"epoch": 89, "arch": "msdnet", "state_dict": named, "best_err1": 25.0, "optimizer": {}}


LAYOUTS: dict[str, Callable[[Mapping[str, Tensor]], Any]] = {
    "avit": deit,
    "adavit": averaged,
    "dynamicvit": deit,
    "evit": deit,
    "msdnet": parallel,
    "sdn_resnet": dict,
    "sdn_vgg": dict,
}
"""Mechanism -> what its official script saves."""


@pytest.mark.parametrize("mechanism", LAYOUTS)
def test_parity_through_a_file(mechanism: str, tmp_path: Path) -> None:
    facts, vectors, weights = golden(mechanism)
    variant, settings = next(iter(facts["variants"].items()))
    path = tmp_path / "checkpoint.pth"
    torch.save(LAYOUTS[mechanism](weights), path)
    victim = getattr(zoo, facts["class"]).from_official(read_checkpoint(path), **settings)
    with torch.no_grad():
        found = victim(vectors["input"])
    assert relative(found, expected(mechanism, facts, vectors, variant)) < 1e-5


def expected(
    mechanism: str, facts: dict[str, Any], vectors: dict[str, Tensor], variant: str
) -> Tensor:
    if mechanism.startswith("sdn"):
        return vectors["exit_logits"][:, list(facts["variants"]).index(variant)]
    if mechanism == "msdnet":
        taken = vectors[f"exit_index/{variant}"].long()
        exits = torch.stack([vectors[f"logits_exit{k}"] for k in range(3)], dim=1)
        return exits[range(len(taken)), taken]
    return vectors[facts["logits"][variant]]


PUBLISHED: dict[str, Callable[[], Victim]] = {
    "tiny-10-30.pth": lambda: AViT(deit_model("tiny"), gate_scale=10, gate_center=30),
    "ada-deit-s.pth.tar": lambda: zoo.AdaViT(deit_model("small")),
    "dynamic-vit_384_r0.7.pth": lambda: zoo.DynamicViT(
        deit_model("small"), pruning_blocks=[3, 6, 9], rule="threshold"
    ),
    "evit-0.7-fuse-deit-s.pth": lambda: zoo.EViT(deit_model("small"), keep_rates=[1] * 12),
    "msdnet-step4-block5.pth.tar": lambda: zoo.MSDNet(
        **{"blocks": 5, "channels": 32, "base": 4, "step": 4, "growth_rate": 16, "scales": 4},
        **{"growth_factors": (1, 2, 4, 4), "bottleneck_factors": (1, 2, 4, 4), "thresholds": 0.5},
        **{"form": "imagenet", "num_classes": 1000},
    ),
    "last": lambda: zoo.SDN(
        "resnet",
        blocks=[9, 9, 9],
        exits=[[int(k in on) for k in range(9)] for on in ((3, 7), (2, 6), (1, 5))],
        threshold=0.5,
    ),
}
"""File name on the page -> a victim of the sizes that were published, untrained."""


def deit_model(size: str) -> Any:
    return timm.create_model(f"deit_{size}_patch16_224")


def official_state(victim: Any) -> dict[str, Tensor]:
    """Official names, zeros of the right shapes that take no space on disk."""
    if isinstance(victim, zoo.SDN):
        parts = victim._official
    elif isinstance(victim, zoo.MSDNet):
        parts = {f"blocks.{k}.": stage for k, stage in enumerate(victim.stages)}
        parts |= {f"classifier.{k}.": head for k, head in enumerate(victim.heads)}
    else:
        parts = {"": victim.vit}
    if isinstance(victim, zoo.DynamicViT):
        parts["score_predictor."] = victim.score_predictor
    state = {p + name: t for p, part in parts.items() for name, t in part.state_dict().items()}
    if isinstance(victim, zoo.AdaViT):
        for name in [name for name in state if ".qkv." in name]:
            for part, tensor in zip(
                ("query", "key", "value"), state.pop(name).chunk(3), strict=True
            ):
                state[name.replace("qkv", part)] = tensor
        for k, policy in enumerate(victim.policies):
            for place in ("attn.token_select", "head_select", "layer_select"):
                if (chosen := getattr(policy, place.removeprefix("attn."))) is not None:
                    prefix = f"blocks.{k}.{place}.mlp_head."
                    state |= {prefix + name: t for name, t in chosen.state_dict().items()}
    return {name: tensor.new_zeros(()).expand(tensor.shape) for name, tensor in state.items()}


def lines() -> list[tuple[str, str]]:
    """(file name, line) of every block of the page that loads a checkpoint."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [(name[1], b) for b in blocks if (name := re.search(r'read_checkpoint\("(.+?)"\)', b))]


def test_the_page_has_a_call_for_each() -> None:
    assert [file for file, _ in lines()] == list(PUBLISHED)


@pytest.mark.parametrize(("file", "line"), lines(), ids=lambda value: value[:12])
def test_calls_of_the_page(
    file: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = PUBLISHED[file]()
    state = official_state(published)
    layout = {"msdnet": parallel, "adavit": averaged, "sdn": dict}.get(line.split()[0], deit)
    torch.save(layout(state), tmp_path / file)
    monkeypatch.chdir(tmp_path)
    setup = re.search(r"^```python\n(from timm.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert setup is not None
    names: dict[str, Any] = {}
    exec(setup[1] + line, names)
    victim = names[line.split()[0]]
    assert victim.dense_macs == published.dense_macs
    assert victim.num_classes == published.num_classes
    assert victim.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_missing_and_surplus_keys_are_listed(tmp_path: Path) -> None:
    facts, _, weights = golden("avit")
    settings = next(iter(facts["variants"].values()))
    broken = {key: t for key, t in weights.items() if key not in ("norm.bias", "cls_token")}
    torch.save(deit(broken | {"dist_token": weights["cls_token"]}), tmp_path / "broken.pth")
    with pytest.raises(
        UsageError, match=r"missing (cls_token, norm\.bias|norm\.bias, cls_token); surplus dist_tok"
    ):
        AViT.from_official(read_checkpoint(tmp_path / "broken.pth"), **settings)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("the file was run",))


UNREADABLE: dict[str, tuple[Any, str]] = {
    "a whole model": (torch.nn.Linear(2, 2), "Unsupported global: .*Linear"),
    "code": ({"model": Harmful()}, "cannot be read as tensors"),
    "no tensors": ({"epoch": 3}, "holds no state dict"),
    "nothing": ({}, "holds no state dict"),
    "a tensor": (torch.zeros(3), "holds no state dict"),
    "names without tensors": ({"model": {"a": 1}}, "holds no state dict"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_files_that_are_no_checkpoint(case: str, tmp_path: Path) -> None:
    content, message = UNREADABLE[case]
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UsageError, match=message):
        read_checkpoint(tmp_path / "file.pth")


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is missing"):
        read_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no pickle")
    (tmp_path / "empty.pth").touch()
    for file in ("text.pth", "empty.pth", "."):
        with pytest.raises(UsageError, match="cannot be read"):
            read_checkpoint(tmp_path / file)
