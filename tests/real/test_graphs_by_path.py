"""Nations, UMLS and Kinships, read by path: what they hold, and a victim that is trained on one.

``EFFATTACK_PYKEEN`` names the folder ``pykeen/datasets`` of the package's unpacked wheel
(``pip download --no-deps pykeen``), where pykeen is not installed.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import effattack
from effattack.attacks import build
from effattack.domains import Graph, check_domain
from effattack.models_zoo.graphs.knowledge import Knowledge, read_triples
from effattack.models_zoo.graphs.links import LinkPredictor
from effattack.models_zoo.graphs.orthogonal import Transforms
from effattack.models_zoo.recipes.graphs import fit, looks_of
from effattack.threats import parse_threat

SIZES = {
    "nations": (14, 55, 1592),
    "umls": (135, 46, 5216),
    "kinships": (104, 25, 8544),
}
"""Folder -> entities, relations and training triples, as pykeen lists them."""


@pytest.fixture(scope="module")
def folder() -> Path:
    found = os.environ.get("EFFATTACK_PYKEEN")
    spec = None if found else find_spec("pykeen")
    if spec is not None and spec.submodule_search_locations:
        found = str(Path(spec.submodule_search_locations[0]) / "datasets")
    if not found:
        pytest.skip(
            "pykeen is not installed (pip download --no-deps pykeen, unzip, and "
            "EFFATTACK_PYKEEN=.../pykeen/datasets), or there is no network"
        )
    return Path(found)


def graph_of(folder: Path, cap: int = 8) -> Graph:
    facts = [
        fact for part in ("train", "valid", "test") for fact in read_triples(folder / f"{part}.txt")
    ]
    entities = sorted({end for head, _, tail in facts for end in (head, tail)})
    return Graph(read_triples(folder / "train.txt"), cap, entities=entities)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_a_folder_is_read_as_it_is_listed(folder: Path, name: str) -> None:
    domain = graph_of(folder / name)
    assert (len(domain.entities), len(domain.relations), len(domain.facts)) == SIZES[name]
    check_domain(domain)


def test_a_hub_has_as_many_edges_as_the_cap(folder: Path) -> None:
    """Every nation deals with every other: no neighbourhood is whole."""
    domain = graph_of(folder / "nations")
    graph = Knowledge(domain)
    queries, _ = graph.queries([graph.asked(fact)[0] for fact in domain.facts[:100]])
    assert ((queries[:, 1:] >= 0).sum(1) == domain.cap).all()
    assert min(map(len, graph.touching.values())) > domain.cap


@pytest.mark.slow
def test_a_victim_learns_nations_and_is_attacked(folder: Path) -> None:
    domain = graph_of(folder / "nations")
    graph = Knowledge(domain)
    torch.manual_seed(0)
    victim = LinkPredictor(Transforms(14, 55, 4, 2), domain, every=2, criterion=0.5)
    asked = [question for fact in domain.facts for question in graph.asked(fact)]
    fit(victim, graph, asked, epochs=6)
    queries, answers = graph.queries(asked[:200])
    right = (looks_of(victim, queries)[:, -1].argmax(1) == answers).double().mean()
    assert right > 2 / 14, "twice chance"
    few = queries[:6]
    effattack.audit(victim, few)
    threat = parse_threat("edges:2")
    attacked = build("Slowdown(steps=20)", victim, threat)(few)
    threat.on(domain).check(attacked, few)
    with torch.no_grad():
        assert victim.trace(attacked).macs.sum() >= victim.trace(few).macs.sum()
