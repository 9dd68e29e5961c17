"""What a run keeps for a replay: per victim and asked budget the worst inputs, as a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

import effattack
from effattack.budgets import at_budget
from effattack.cells.plan import Budget, Plan
from effattack.cells.store import Shelf
from effattack.domains import Batch, Domain
from effattack.errors import EffattackError, UsageError
from effattack.inputs.corpus import About, Corpus, file_name, packed, read_corpus
from effattack.results.currency import with_work
from effattack.results.evaluation import Evaluation
from effattack.results.files import replaced, writable, writing
from effattack.results.union import within_budgets
from effattack.runs.joining import read
from effattack.threats import parse_threat

FOLDER = "corpus"
"""Of the corpora, below that of the results."""
MOST = 2.0
"""MB of one corpus."""
INPUTS = 64
"""Of one corpus: each is audited twice when it is replayed, which is to take seconds."""
DENSEST = 20
"""How many times as many inputs are looked through as would fit if they did not compress at all."""


def keep_worst(
    plans: Sequence[Plan],
    shelf: Shelf,
    evaluation: Evaluation,
    out: Path,
    megabytes: float = MOST,
) -> list[str]:
    """Write the worst inputs of every victim in each budget that it was judged in.

    Of each input it is the worst of all rows inside. Where not all fit, those that take back most
    stay. What a corpus of the same victim holds already stays, too; that of a victim as it was
    before is replaced.

    Args:
        plans: the cells.
        shelf: where their rows are.
        evaluation: of these plans.
        out: the folder of the results.
        megabytes: of each corpus, at most; 0: none is kept.

    Returns:
        what there is to tell of them.

    Raises:
        UsageError: if the folder cannot be written.
        StoreError: if the disk is full.
    """
    told: list[str] = []
    for plan in plans if megabytes else ():
        own = evaluation.samples[evaluation.samples.victim == plan.about.name]
        for threat, eps, within in within_budgets(with_work(own)) if len(own) else ():
            where = f"{plan.about.name} at {at_budget(threat, eps)}"
            found = _found(plan, shelf, (threat, eps), within, megabytes * 1e6)
            said = _written(found, writable(out / FOLDER), megabytes) if found else [_NOT_AGAIN]
            told += [f"{where}: {sentence}" for sentence in said]
    return told


_NOT_AGAIN = (
    "no corpus is kept: its inputs were not stored, or its threat has no text to read again"
)


def _found(
    plan: Plan, shelf: Shelf, budget: Budget, within: pd.DataFrame, room: float
) -> Corpus | None:
    """The worst row of each input inside a budget, as far as its input is stored: the one of most
    work, and of equal ones one that is answered wrongly."""
    assert plan.domain is not None
    domain, data = plan.domain, plan.contract.made_from.opened(plan.domain)
    ordered = within.sort_values(["work", "right"], ascending=[False, True], kind="stable")
    worst = ordered.drop_duplicates("sample")
    gain = (worst.work - worst.clean_work).sort_values(ascending=False, kind="stable")
    (one,) = domain.pack(domain.snap(domain.place(data.read(0, 1)[0], "cpu")))
    worst = worst.loc[gain.index[: max(1, int(DENSEST * room / len(one)))]]
    stored = _stored(plan, shelf, worst)
    worst = worst[worst["sample"].isin(stored)].sort_values("sample")
    if worst.empty:
        return None
    inputs, labels = data.rows(worst["sample"].tolist())
    clean = domain.snap(domain.place(inputs, "cpu"))
    attacked = [stored[sample] for sample in worst["sample"]]
    inside = {text: _inside(domain, text, attacked, clean) for text in plan.threats[budget]}
    text = max(inside, key=lambda text: len(inside[text]))
    corpus = Corpus(
        _about(plan, text, within),
        domain.pack(clean),
        attacked,
        labels.cpu().numpy(),
        worst.clean_work.to_numpy(float),
        worst.work.to_numpy(float),
        worst.attack.tolist(),
    )
    return corpus.take(inside[text]) if inside[text] else None


def _stored(plan: Plan, shelf: Shelf, worst: pd.DataFrame) -> dict[int, bytes]:
    """Index -> the attacked input of a worst row, where its cell stored it."""
    found: dict[int, bytes] = {}
    for cell in plan.attacks:
        spec = cell.spec
        mine = (worst.attack == spec.attack) & (worst.threat == cell.threat)
        mine &= (worst.eps == spec.eps) & (worst.seed == spec.seed)
        wanted = worst.loc[mine & worst["sample"].between(spec.first, spec.last - 1), "sample"]
        if len(wanted):
            images = read(shelf, spec).set_index("sample").image.loc[wanted].dropna()
            found |= images.to_dict()
    return found


def _inside(domain: Domain, text: str, attacked: Sequence[bytes], clean: Batch) -> list[int]:
    """The rows that lie in the threat of a text; none, if it cannot be read."""
    try:
        threat = parse_threat(text).on(domain)
    except EffattackError:
        return []
    pairs = enumerate(zip(attacked, domain.singles(clean), strict=True))
    return [row for row, (a, c) in pairs if threat.flaw(domain.unpack([a], c), c) is None]


def _about(plan: Plan, threat: str, within: pd.DataFrame) -> About:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return About(
        plan.about.name,
        plan.contract.spec.victim_digest,
        threat,
        plan.about.domain,
        plan.about.num_classes,
        str(within.currency.iloc[0]),
        scored=within["sample"].nunique(),
        made=f"{now}, effattack {effattack.__version__}",
    )


def _written(found: Corpus, folder: Path, megabytes: float) -> Iterator[str]:
    """Join with what the same victim's corpus holds, cut to the size, and write."""
    path = folder / file_name(found.about.victim, found.about.threat)
    if path.exists():
        try:
            before = read_corpus(path)
            found = found.joined(before) if _of_the_same(found, before) else found
        except UsageError as error:
            yield f"{error}; it is replaced"
    count = min(INPUTS, len(found))
    data = packed(found.dearest(count))
    while len(data) > megabytes * 1e6 and count:
        count = min(count - 1, int(count * megabytes * 1e6 / len(data)))
        data = packed(found.dearest(count))
    if count:
        with writing(folder):
            replaced(path, data)
    if count < found.about.scored:
        yield (
            f"the corpus keeps {count} of {found.about.scored} inputs, those that take back most "
            f"({INPUTS} inputs and {megabytes:g} MB are the most)"
        )


def _of_the_same(one: Corpus, other: Corpus) -> bool:
    """Whether two corpora are of one victim, so that their work compares."""
    keys = ("victim", "digest", "threat", "domain", "currency")
    same = all(getattr(one.about, key) == getattr(other.about, key) for key in keys)
    return same and one.labels.shape[1:] == other.labels.shape[1:]
