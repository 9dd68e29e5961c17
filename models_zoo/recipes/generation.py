"""Generators: a network learns to continue prompts with their exact answers, the end token last."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from effattack.domains.tokens import PAD, lengths
from effattack.models_zoo.files import WEIGHTS, save_weights, write_card
from effattack.models_zoo.generation import embedded, sums, thoughts
from effattack.models_zoo.generation.decoder import CausalNetwork
from effattack.models_zoo.generation.generator import Generator
from effattack.models_zoo.generation.writer import Writer
from effattack.models_zoo.recipes import fitting
from effattack.models_zoo.recipes.cards import BATCH

DATA = "effattack.models_zoo.generation.{}: 40000 training, 200 held-out, 200 test prompts"


def train_sums_lm() -> None:
    """Cross-entropy of every token of the answer, its steps included."""
    torch.manual_seed(0)
    victim = embedded.sums_lm(trained=False)
    fit(victim, *sums.sums("train"), epochs=4, rate=4e-3)
    save_weights(victim.network, WEIGHTS / "sums_lm.safetensors")
    describe(embedded.sums_lm(), *sums.sums("test"), data=DATA.format("sums"))


def train_sums_reasoner() -> None:
    """Cross-entropy of every token of chain, close mark and answer, in two cycles: behind the first
    every twentieth held-out answer was wrong."""
    torch.manual_seed(0)
    victim, (asked, _) = embedded.sums_reasoner(trained=False), thoughts.thoughts("train")
    for epochs, rate in ((6, 4e-3), (2, 2e-3)):
        fit(victim, asked, thoughts.written_out("train"), epochs=epochs, rate=rate)
        save_weights(victim.network, WEIGHTS / "sums_reasoner.safetensors")
        victim = embedded.sums_reasoner()
    describe(victim, *thoughts.thoughts("test"), data=DATA.format("thoughts"))


def fit(victim: Generator, prompts: Tensor, answers: Tensor, *, epochs: int, rate: float) -> None:
    """Train the network on prompts in their template, with answers behind them."""
    texts, asked = joined(victim, prompts, answers)
    loss = answer_loss(victim.network)
    fitting.fit(
        victim.network,
        loss,
        (texts, asked),
        fitting.as_they_are,
        epochs=epochs,
        rate=rate,
        batch=64,
    )


def joined(victim: Generator, prompts: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts in their template with answers and end token behind them, (B, L) and padded, and
    where the answers begin, (B,)."""
    before, after = (torch.tensor(part, dtype=torch.long) for part in victim.template)
    end = torch.tensor([victim.choice.end])
    rows = [
        torch.cat([before, prompt[prompt != PAD], after, answer[answer != PAD], end])
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    texts = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    return texts, lengths(prompts) + len(victim.template)


def answer_loss(network: CausalNetwork) -> fitting.Loss:
    """Of the tokens from where the answers begin."""

    def loss(texts: Tensor, asked: Tensor) -> Tensor:
        texts = texts[:, : int(lengths(texts).max())]
        state, _ = network.read(network.lift(texts[:, :-1].clamp_min(0)))
        of_prompts = torch.arange(1, texts.shape[1]) < asked[:, None]
        wanted = texts[:, 1:].masked_fill(of_prompts, PAD)
        return F.cross_entropy(network.draw(state).mT, wanted, ignore_index=PAD)

    return loss


def describe(victim: Writer, prompts: Tensor, answers: Tensor, *, data: str) -> None:
    """Write the card of a generator from its test prompts, and print its line."""
    with torch.no_grad():
        traces = [victim.trace(some) for some in prompts.split(BATCH)]
    written = victim.task.join([trace.logits for trace in traces])
    right = victim.task.right(victim.task.answer(written), answers).double().mean().item()
    counts = {
        f"clean_{name}": round(torch.cat([t.also[name] for t in traces]).mean().item(), 2)
        for name in ("passes", "chain_tokens")
        if name in victim.counts
    }
    card = {
        "name": victim.name,
        "family": victim.family,
        "data": data,
        "recipe": f"python -m effattack.models_zoo.train {victim.name}",
        "accuracy": round(right, 4),
        "cap": victim.cap,
        **counts,
        "clean_macs": round(torch.cat([trace.macs for trace in traces]).mean().item()),
        "max_macs": round(victim.max_macs),
        "capped": round(torch.cat([t.aux["capped"] for t in traces]).double().mean().item(), 4),
        "parameters": sum(p.numel() for p in victim.parameters()),
        "torch": torch.__version__,
    }
    write_card(victim.name, card)
    print(
        f"{victim.name}: accuracy {right:.2%}, clean passes {card['clean_passes']} of {victim.cap}"
    )


RECIPES: dict[str, Callable[[], None]] = {
    "sums_lm": train_sums_lm,
    "sums_reasoner": train_sums_reasoner,
}
