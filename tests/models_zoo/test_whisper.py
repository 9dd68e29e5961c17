"""Whisper: what it hears, what it writes, what that costs, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from effattack import attacks, evaluate
from effattack.counting.macs import count_macs
from effattack.domains import check_domain
from effattack.domains.tokens import PAD, lengths
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo.sound.listener import Listener, NothingBehind, Sizes
from effattack.models_zoo.sound.log_mel import RATE, LogMel
from effattack.models_zoo.sound.recordings import STEP, Recordings
from effattack.models_zoo.sound.whisper import Whisper
from effattack.models_zoo.sound.whisper_models import from_transformers
from effattack.threats import parse_threat
from effattack.victim import audit
from effattack.victim.checks import INVARIANTS, Check

transformers = pytest.importorskip("transformers", reason="the independent implementation")

IDS, CAP, END, START, NOTHING = 30, 8, 3, (1, 2), (4, 5)
SIZES = Sizes(IDS, 16, 2, 24, 2, 3, positions=20, context=12, bands=10)
WINDOW = 20 * 2 * 160
SAID = WINDOW - 700


def model(seed: int = 1) -> Any:
    """A random one of two and three layers, whose texts have many lengths."""
    config = transformers.WhisperConfig(
        vocab_size=IDS,
        d_model=16,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_source_positions=20,
        max_target_positions=12,
        num_mel_bins=10,
        pad_token_id=END,
        bos_token_id=END,
        eos_token_id=END,
        decoder_start_token_id=START[0],
        attn_implementation="eager",
    )
    made = transformers.WhisperForConditionalGeneration(config)
    draw = Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            scale = 1.0 if "embed" in name else 0.4
            middle = float("norm" in name and name.endswith("weight"))
            parameter.copy_(middle + scale * torch.randn(parameter.shape, generator=draw))
        made.model.decoder.embed_tokens.weight[END] *= 4
        for layer in made.model.decoder.layers:
            layer.encoder_attn.out_proj.weight *= 3.6
    settings = made.generation_config
    settings.no_timestamps_token_id, settings.is_multilingual = START[1], False
    settings.suppress_tokens, settings.begin_suppress_tokens = [*NOTHING], [6, END]
    return made.eval()


def victim(**settings: Any) -> Whisper:
    return from_transformers(model(), **{"cap": CAP, **settings})


def recordings(count: int, seed: int = 0) -> Tensor:
    """Tones in noise, on the grid of 16 bits."""
    draw = Generator().manual_seed(seed)
    time = torch.arange(SAID) / RATE
    pitch = 100 * 40 ** torch.rand(count, 1, 3, generator=draw)
    tones = (2 * math.pi * pitch[..., None] * time).sin() * torch.rand(
        count, 1, 3, 1, generator=draw
    )
    noise = torch.randn(count, 1, SAID, generator=draw)
    return DOMAIN.snap(tones.sum(2) / 4 + 0.03 * noise)


DOMAIN = Recordings(RATE, WINDOW)


def by_hand(theirs: Any, frames: Tensor) -> list[int]:
    """Greedy, with every pass from the first token on, and ``transformers``' own network."""
    written: list[int] = []
    while len(written) < CAP and END not in written:
        ids = torch.tensor([[*START, *written]])
        logits = theirs(input_features=frames[None], decoder_input_ids=ids).logits[0, -1]
        banned = [*NOTHING, *([6, END] if not written else [])]
        logits[banned] = -math.inf
        written.append(int(logits.argmax()))
    return written


@pytest.mark.parametrize("loudness", [1e-4, 0.02, 1.0])
def test_frames_are_the_published_ones(loudness: float) -> None:
    extractor = transformers.WhisperFeatureExtractor(chunk_length=1)
    sound = loudness * recordings(3, seed=4)[:, 0]
    theirs = extractor(list(sound.numpy()), sampling_rate=RATE, return_tensors="pt")
    ours = LogMel(80)(pad(sound, (0, RATE - SAID)))
    assert ours.shape == (3, 80, 100)
    assert (ours - theirs.input_features).abs().max() < 1e-4


@torch.no_grad()
def test_texts_are_those_of_transformers() -> None:
    theirs, mine, heard = model(), victim(), recordings(16)
    frames = mine.network.encoder.frames(pad(heard[:, 0], (0, WINDOW - SAID)))
    written = [row[row != PAD].tolist() for row in mine(heard)]
    assert written == [by_hand(theirs, one) for one in frames]
    assert len({len(text) for text in written}) > 2
    assert any(text[-1] != END for text in written), "some are ended by the cap"


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_every_invariant_holds(check: Check) -> None:
    assert not check(victim(), recordings(6))


def test_declared_work_is_executed_work() -> None:
    mine, heard = victim(), recordings(12, seed=1)
    found, trace = audit(mine, heard), mine.trace(heard)
    assert torch.equal(found.macs, trace.macs)
    assert len(found.counts["passes"].unique()) > 2
    for name in ("passes", "output_tokens", "cache_bytes"):
        assert torch.equal(found.counts[name], trace.also[name])
    hearing = count_macs(mine.network.hear, heard[:1])
    assert trace.stages["hearing"].tolist() == [hearing] * 12
    assert torch.equal(trace.stages["writing"], trace.macs - hearing)
    assert torch.equal(mine.ceiling(heard), torch.full((12,), mine.max_macs).double())
    assert (found.macs <= mine.max_macs).all()


def test_the_price_is_that_of_every_part() -> None:
    """Of one pass, which reads two start tokens, and of one that follows."""
    price, w, s = victim().network.price, 16, 20
    frames = 40 * (2 * 201 * 400 + 201 * 10)
    encoder = 40 * 10 * 3 * w + 20 * w * 3 * w + 2 * (20 * (4 * w * w + 2 * w * 24) + 2 * w * s * s)
    keys = 3 * 2 * w * w * s
    token = 3 * (6 * w * w + 2 * w * 24 + 2 * w * s)
    first = 2 * token + 3 * 2 * w * 4 + w * IDS
    one, two = (price.macs(torch.tensor(s), torch.tensor(n)).item() for n in (1, 2))
    assert one == frames + encoder + keys + first
    assert two - one == token + 3 * 2 * w * 3 + w * IDS
    network = victim().network
    matrices = sum(p.numel() for p in network.parameters() if p.dim() > 1)
    places = network.places.numel() + network.encoder.places.numel()
    fixed = network.encoder.frames.bases.numel() + network.encoder.frames.filters.numel()
    every = price.token - price.again + price.kept + price.decoder.weights
    assert every == matrices - places + fixed


def test_tiny_english_costs_what_is_known_of_it() -> None:
    """Counted on another implementation: 20,238,336,000 MACs of encoder and keys per window."""
    sizes = Sizes(51_864, 384, 6, 1536, 4, 4, positions=1500, context=448)
    price = sizes.price
    heard = 1500 * (price.token + price.kept) + 1500**2 * price.pair
    assert heard - 3000 * (2 * 201 * 400 + 201 * 80) == 20_238_336_000


def test_the_first_token_is_no_decision() -> None:
    mine, heard = victim(), recordings(16)
    trace, written = mine.trace(heard), mine(heard)
    (gate,) = trace.gates
    assert not gate.reached[:, 0].any()
    assert torch.equal(gate.reached.sum(1), lengths(written).clamp_max(CAP - 1) - 1)
    assert torch.equal(trace.aux["capped"], ~(written == END).any(1))
    assert not torch.isin(written, torch.tensor(NOTHING)).any()
    assert not torch.isin(written[:, 0], torch.tensor([6, END])).any()


def test_gradients_are_those_of_finite_differences() -> None:
    mine, heard = victim().double(), recordings(4, seed=5).double()

    def pushed(sound: Tensor) -> Tensor:
        (gate,) = mine.trace(sound).gates
        return gate.margin.masked_fill(~gate.reached, 0).sum()

    leaf = heard.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pushed(leaf), leaf)
    way = torch.randn(heard.shape, generator=Generator().manual_seed(0)).double()
    with torch.no_grad():
        slope = (pushed(heard + 1e-7 * way) - pushed(heard - 1e-7 * way)) / 2e-7
    assert slope.item() == pytest.approx((gradient * way).sum().item(), rel=1e-4)
    assert gradient.flatten(1).any(1).all()


def test_silence_behind_a_recording_changes_nothing() -> None:
    mine, heard = victim(), recordings(8)
    long = mine.domain.stretched(heard)
    assert long.shape[2] == WINDOW
    assert torch.equal(mine(long), mine(heard))
    assert count_macs(mine, long) == count_macs(mine, heard)


def test_there_may_be_nothing_behind_a_recording() -> None:
    """As ``faster-whisper`` has it: zeros in place of frames of silence, the others the same."""
    usual, other, heard = victim().network, NothingBehind(SIZES, START), recordings(3)
    whole, frames = usual.framed(heard), other.framed(heard)
    assert torch.equal(frames[..., : SAID // 160], whole[..., : SAID // 160])
    assert not frames[..., SAID // 160 :].any()
    assert whole[..., SAID // 160 :].any()


def test_silence_is_answered() -> None:
    mine = victim()
    trace = mine.trace(torch.zeros(2, 1, 100))
    assert trace.gates[0].margin.isfinite().all()
    assert torch.equal(trace.logits, mine(torch.zeros(2, 1, 100)))


def test_recordings_are_a_domain() -> None:
    check_domain(DOMAIN)
    assert torch.equal(DOMAIN.snap(torch.full((1, 1, 1), 1.0)), torch.full((1, 1, 1), 1 - STEP))


@pytest.mark.parametrize(
    "name",
    [
        "Slowdown(steps=4)",
        "SlothSpeech(steps=4, rate=0.005)",
        "QueryAttack(queries=8)",
        pytest.param("AutoSlow", marks=pytest.mark.slow),
    ],
)
def test_attacks_apply_to_samples(name: str) -> None:
    mine, heard = victim(), recordings(6, seed=2)
    found = attacks.build(name, mine, parse_threat("linf:0.02"))(heard)
    assert ((found - heard).abs() <= 0.02).all()
    assert torch.equal(found, mine.domain.snap(found))
    assert mine.trace(found).also["passes"].sum() >= mine.trace(heard).also["passes"].sum()


@pytest.mark.parametrize("name", ["NMTSloth", "LoopLLM"])
def test_attacks_on_prompts_do_not(name: str) -> None:
    with pytest.raises(NotApplicable, match="changes tokens, whisper takes recordings"):
        attacks.build(name, victim())


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        (torch.zeros(1, 1, WINDOW + 1), "the window is 0.4 s of 16000 samples: cut them"),
        (torch.zeros(1, 2, 50), r"the victim takes \(B, 1, any\): give samples of one channel"),
        (torch.ones(1, 1, 50), r"not in \[-1, 0.999969\]: divide samples of 16 bits by 32768"),
        (torch.full((1, 1, 50), math.nan), "contain NaN or infinity"),
    ],
)
def test_sound_that_it_cannot_take_is_refused(heard: Tensor, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        evaluate(victim(), heard, torch.zeros(1, 1, dtype=torch.long), ["noise"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cap": 0}, "whisper: cap = 0: give a whole number of at least 1"),
        ({"cap": 12}, "2 start tokens and a cap of 12 need a context of 13, the decoder has 12"),
    ],
)
def test_caps_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        victim(**settings)


@pytest.mark.parametrize("start", [(), (IDS,)])
def test_start_tokens_that_are_none_are_refused(start: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="are none of the 30 ids of the decoder"):
        Listener(SIZES, start)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(UsageError, match="a width of 16 and 3 heads: give a multiple"):
        Listener(SIZES._replace(heads=3), START)


def test_models_of_several_languages_are_refused() -> None:
    theirs = model()
    theirs.generation_config.is_multilingual = True
    with pytest.raises(UsageError, match="of several languages: give an English one"):
        from_transformers(theirs)
    theirs.config.model_type = "bart"
    with pytest.raises(UsageError, match="is no Whisper"):
        from_transformers(theirs)
