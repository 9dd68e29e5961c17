"""Link prediction on graphs by path: trained, attacked with added edges, a row kept for each.

    python benchmarks/graphs.py FOLDER ...          # each with train.txt, valid.txt and test.txt
    python benchmarks/graphs.py --table

Folders are those of Nations, UMLS and Kinships as the package ``pykeen`` holds them
(``pip download --no-deps pykeen``, then ``unzip``: pykeen/datasets/nations, umls, kinships). A
graph knows the facts of train.txt alone. When to stop reading is chosen on questions of valid.txt;
scored are questions of test.txt, both ways, attacked some of them, drawn by seed 0. Accuracy is
hits@1 among all entities, filtered: other right answers that any of the files knows are no wrong
ones. Cells of the table: attack success, times the clean MACs, [share of answers that stay].
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import torch
from kept_rows import keep, kept, parser_of
from tables import markdown
from torch import Tensor

import effattack
from effattack.cells.spec import code_version
from effattack.domains import Graph
from effattack.domains.tokens import PAD
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.exits import first_exit
from effattack.models_zoo.graphs.knowledge import Knowledge, Question, read_triples
from effattack.models_zoo.graphs.links import LinkPredictor
from effattack.models_zoo.graphs.orthogonal import Transforms
from effattack.models_zoo.recipes.graphs import fit, looks_of

ROWS = Path(__file__).parents[1] / "reports" / "real" / "graphs.jsonl"
CAP, EVERY = 16, 2
STEPS, BATCH = 1000, 64
CHOSEN_ON, SCORED, BUDGET = 300, 32, "edges:2"
KEPT = 0.95
"""Share of the accuracy of reading all that is kept on the questions a threshold is chosen on."""
ATTACKS = ("noise", "BestOfRandom(draws=120)", "QueryAttack(queries=120)", "Slowdown")


class Files:
    """The facts of a folder, and what its graph knows of them."""

    def __init__(self, folder: Path) -> None:
        parts = {part: read_triples(folder / f"{part}.txt") for part in ("train", "valid", "test")}
        facts = [fact for part in parts.values() for fact in part]
        entities = sorted({end for head, _, tail in facts for end in (head, tail)})
        relations = sorted({relation for _, relation, _ in facts})
        self.domain = Graph(parts["train"], CAP, entities=entities, relations=relations)
        self.known = Knowledge(self.domain)
        self.all = Knowledge(Graph(facts, CAP, entities=entities, relations=relations))
        self.parts = parts

    def questions(self, part: str, count: int | None = None) -> list[Question]:
        """Both questions of every fact, or of as many drawn ones as asked for."""
        facts = [self.domain.numbered(fact) for fact in dict.fromkeys(self.parts[part])]
        found = [question for fact in facts for question in self.known.asked(fact)]
        return found if count is None else Random(0).sample(found, count)

    def right(self, said: Tensor, questions: list[Question]) -> float:
        """Hits@1, filtered, of logits (B, entities)."""
        answers = torch.tensor([question.answer for question in questions])
        others = self.all.others(questions)
        found = said.masked_fill(others, -torch.inf).argmax(1)
        return (found == answers).double().mean().item()

    def criterion(self, looks: Tensor, questions: list[Question]) -> Confidence:
        """The lowest confidence, in hundredths, that keeps enough of the accuracy of reading all.

        Sure is who is sure of one entity, whether others are right, too, or not.
        """
        rows, floor = torch.arange(len(looks)), KEPT * self.right(looks[:, -1], questions)
        for percent in range(1, 100):
            found = Confidence(percent / 100)
            margins = [found.margin(looks[:, : k + 1]) for k in range(looks.shape[1] - 1)]
            taken = first_exit(margins)[0].sum(1)
            if self.right(looks[rows, taken], questions) >= floor:
                return found
        return Confidence(1.0)


def row_of(folder: Path) -> dict[str, Any]:
    """Train on a folder, then score and attack."""
    files, began = Files(folder), time.perf_counter()
    transforms = Transforms(
        len(files.domain.entities), len(files.domain.relations), blocks=8, size=4
    )
    victim = LinkPredictor(
        transforms, files.domain, every=EVERY, criterion=1.0, name=f"{folder.name}_links"
    )
    asked = files.questions("train")
    fit(victim, files.known, asked, epochs=max(1, round(STEPS * BATCH / len(asked))))
    chosen = files.questions("valid", min(CHOSEN_ON, 2 * len(files.parts["valid"])))
    victim.criterion = files.criterion(looks_of(victim, files.known.queries(chosen)[0]), chosen)
    return described(files, victim) | {
        "graph": folder.name,
        "seconds": round(time.perf_counter() - began),
        "date": datetime.now(UTC).date().isoformat(),
        "code": code_version(),
    }


def described(files: Files, victim: LinkPredictor) -> dict[str, Any]:
    """What a trained victim does on test questions, clean and under every attack."""
    tested = files.questions("test")
    queries, _ = files.known.queries(tested)
    with torch.no_grad():
        traces = [victim.trace(some) for some in queries.split(200)]
    edges = (queries[:, 1:] != PAD).sum(1)
    drawn = files.questions("test", SCORED)
    result = effattack.evaluate(
        victim, *files.known.queries(drawn), list(ATTACKS), eps=BUDGET, timed=0
    )
    scores = result.scores().set_index("attack")
    return {
        "entities": len(files.domain.entities),
        "relations": len(files.domain.relations),
        "facts": len(files.domain.facts),
        "questions": len(tested),
        "at the cap": (edges == CAP).double().mean().item(),
        "dense": files.right(looks_of(victim, queries)[:, -1], tested),
        "accuracy": files.right(torch.cat([trace.logits for trace in traces]), tested),
        "threshold": getattr(victim.criterion, "thresholds", None),
        "read": torch.cat([trace.also["edges"] for trace in traces]).mean().item(),
        "at hand": edges.double().mean().item(),
        "attacked": {
            attack: {
                "success": 1 - row.savings_retained,
                "ratio": row.macs_ratio,
                "agreement": row.agreement,
            }
            for attack, row in scores.iterrows()
        },
    }


def table(rows: list[dict[str, Any]]) -> str:
    """One line per graph."""
    header = ["graph", "facts", "queries at the cap", "hits@1 (all read)", "edges read, clean"]
    body = [
        [
            row["graph"],
            f"{row['facts']}",
            f"{row['at the cap']:.0%}",
            f"{row['accuracy']:.1%} ({row['dense']:.1%})",
            f"{row['read']:.1f} of {row['at hand']:.1f}",
            *(_attacked(row["attacked"][name]) for name in ATTACKS),
        ]
        for row in rows
    ]
    columns = [*header, *(name.partition("(")[0] for name in ATTACKS)]
    return markdown(pd.DataFrame(body, columns=columns))


def _attacked(row: dict[str, float]) -> str:
    return f"{row['success']:.0%}, ×{row['ratio']:.2f} [{row['agreement']:.0%}]"


def main() -> None:
    parser = parser_of(__doc__ or "", ROWS)
    parser.add_argument("folders", nargs="*", type=Path, help="of train.txt, valid.txt, test.txt")
    options = parser.parse_args()
    for folder in options.folders:
        keep(options.rows, row_of(folder))
    if options.table or not options.folders:
        print(table(kept(options.rows)))


if __name__ == "__main__":
    main()
