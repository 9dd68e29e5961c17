"""What ``deployed.py`` times: victims, each beside its dense model.

The token mechanisms stand on a ViT of the size of DeiT-S with random weights: how long a token
takes does not depend on what it says. How many tokens an image keeps is imposed by setting the
thresholds on a few images (``share_kept``); it then varies from image to image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate

from effattack import Victim
from effattack.models_zoo import (
    ATS,
    AdaViT,
    AViT,
    Cascade,
    DynamicViT,
    EarlyExit,
    EViT,
    SkipNet,
    ToMe,
    embedded,
)
from effattack.models_zoo.digits import digits
from effattack.models_zoo.token_sparsification.vit import ViTVictim
from effattack.victim.margins import log_odds

PRUNING_BLOCKS = (3, 6, 9)
DIGITS = (
    "digits_cnn_early_exit",
    "digits_cnn_sdn",
    "digits_msdnet",
    "digits_vit_exit",
    "digits_skipnet",
    "digits_tinysaver_cascade",
    "digits_vit_int8",
    "digits_vit_llm_int8",
)


class Subject(NamedTuple):
    """A victim, and the model that it saves the work of."""

    victim: Victim
    dense: Callable[[Tensor], Tensor]
    images: Tensor


def deit_s() -> VisionTransformer:
    """DeiT-S with random weights, larger than at initialisation: blocks must change the tokens."""
    torch.manual_seed(0)
    vit = VisionTransformer(embed_dim=384, depth=12, num_heads=6)
    for name, weight in vit.named_parameters():
        if weight.dim() > 1 and name not in ("pos_embed", "cls_token"):
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return vit.eval()


def patterns(count: int) -> Tensor:
    """Images (count, 3, 224, 224) of coloured squares, from faint to strong."""
    generator = torch.Generator().manual_seed(1)
    squares = torch.rand(count, 3, 14, 14, generator=generator) - 0.5
    strength = torch.linspace(0.2, 1, count)[torch.randperm(count, generator=generator)]
    return 0.5 + interpolate(squares, size=224) * strength[:, None, None, None]


def token_victims(images: Tensor) -> Iterator[Subject]:
    """Every token mechanism, around half of the dense model's MACs; images as the victim's."""
    few = images[:8].cpu().float()
    evit_rates = [0.7 if block in PRUNING_BLOCKS else 1.0 for block in range(12)]
    makers: tuple[Callable[[], ViTVictim], ...] = (
        lambda: ATS(deit_s(), ats_blocks=range(3, 12), reference_tokens=108),
        lambda: halting(AViT(deit_s(), gate_scale=10, gate_center=20)),
        lambda: choosing(AdaViT(deit_s()), few),
        lambda: dropping(
            DynamicViT(deit_s(), pruning_blocks=PRUNING_BLOCKS, rule="threshold"), few
        ),
        lambda: DynamicViT(
            deit_s(),
            pruning_blocks=PRUNING_BLOCKS,
            keep_ratios=(0.7, 0.49, 0.343),
            name="DynamicViT top-k",
        ),
        lambda: EViT(deit_s(), keep_rates=evit_rates),
        lambda: ToMe(deit_s(), r=13),
    )
    for make in makers:
        victim = make().to(images)
        yield Subject(victim, partial(_stock_vit, victim), images)


def digits_victims() -> Iterator[Subject]:
    """The trained victims of the other families, on test digits."""
    images, _ = digits("test")
    for name in DIGITS:
        victim: Victim = getattr(embedded, name)()
        yield Subject(victim, dense_model(victim), images)


def dense_model(victim: Victim) -> Callable[[Tensor], Tensor]:
    """The model without the mechanism."""
    if isinstance(victim, EarlyExit):
        stages = [*victim.stages, victim.heads[-1]]
        return lambda images: _in_a_row(stages, (images - victim.mean) / victim.std)
    if isinstance(victim, SkipNet):
        return partial(_in_a_row, [victim.stem, *victim.blocks, victim.head])
    if isinstance(victim, Cascade):
        return victim.models[-1]
    return embedded.digits_vit()


def halting(victim: AViT) -> AViT:
    """Halting log-odds around -2: tokens leave from the third block on, CLS after the last.

    No block writes channel 0, so every token keeps its score.
    """
    with torch.no_grad():
        victim.vit.pos_embed[0, :, 0] = 1.8 + 0.12 * torch.randn(victim.tokens)
        victim.vit.cls_token[0, 0, 0] = 0
        victim.vit.pos_embed[0, 0, 0] = 1.5
        victim.vit.patch_embed.proj.weight[0] *= 0.1
        for block in victim.vit.blocks:
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight[0] = 0
    return victim


def choosing(victim: AdaViT, images: Tensor) -> AdaViT:
    """Each policy keeps 70 % of the tokens, 80 % of the heads, 90 % of the sublayers."""
    shares = {"token_select": 0.7, "head_select": 0.8, "layer_select": 0.9}
    hooks = []
    for policy in victim.policies:
        limits = policy.thresholds
        odds = dict(zip(shares, map(log_odds, limits), strict=True))
        for name, layer in policy.named_children():
            nn.init.normal_(layer.weight, std=0.05)
            hooks.append(share_kept(layer, shares[name], odds[name], lambda z: z))
    calibrate(victim, images, hooks)
    return victim


def dropping(victim: DynamicViT, images: Tensor) -> DynamicViT:
    """Each predictor keeps 70 % of the tokens that it sees."""
    hooks = []
    for predictor in victim.score_predictor:
        layers = [m for m in predictor.modules() if isinstance(m, nn.Linear)]
        for layer in layers:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        hooks.append(share_kept(layers[-1], 0.7, 0.0, lambda z: z[..., :1] - z[..., 1:]))
    calibrate(victim, images, hooks)
    return victim


def share_kept(layer: nn.Linear, share: float, limit: float, odds: Callable[..., Tensor]) -> Any:
    """On its next call the layer moves its bias so that a share of its units passes ``limit``."""

    def shift(module: nn.Linear, _: Any, out: Tensor) -> Tensor:
        found = odds(out).flatten(0, -2).quantile(1 - share, dim=0)
        moved = torch.zeros_like(module.bias)
        moved[: len(found)] = limit - found
        module.bias.data += moved
        return out + moved

    return layer.register_forward_hook(shift)


def calibrate(victim: Victim, images: Tensor, hooks: list[Any]) -> None:
    """One pass over the images, in which the hooks act, and then go."""
    with torch.no_grad():
        victim.trace(images)
    for hook in hooks:
        hook.remove()


def _stock_vit(victim: ViTVictim, images: Tensor) -> Tensor:
    return victim.vit((images - victim.mean) / victim.std)


def _in_a_row(modules: list[nn.Module], x: Any) -> Tensor:
    return reduce(lambda x, module: module(x), modules, x)
