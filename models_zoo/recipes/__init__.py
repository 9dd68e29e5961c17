"""The training recipes of the embedded victims, one file per family: name -> recipe."""

from __future__ import annotations

from collections.abc import Callable

from effattack.models_zoo.recipes import (
    adaptation,
    adversarial,
    cascade,
    cifar10,
    counting,
    defences,
    detection,
    early_exit,
    exam,
    generation,
    graphs,
    hardened,
    layer_skipping,
    machines,
    minilm,
    multimodal,
    plain,
    series,
    text,
    token_sparsification,
    translation,
)

RECIPES: dict[str, Callable[[], None]] = {
    **plain.RECIPES,
    **early_exit.RECIPES,
    **cascade.RECIPES,
    **layer_skipping.RECIPES,
    **token_sparsification.RECIPES,
    **cifar10.RECIPES,
    **defences.RECIPES,
    **adversarial.RECIPES,
    **series.RECIPES,
    **hardened.RECIPES,
    **exam.RECIPES,
    **generation.RECIPES,
    **translation.RECIPES,
    **text.RECIPES,
    **minilm.RECIPES,
    **detection.RECIPES,
    **multimodal.RECIPES,
    **counting.RECIPES,
    **adaptation.RECIPES,
    **machines.RECIPES,
    **graphs.RECIPES,
}
