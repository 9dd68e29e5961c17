"""The victims of graphs that come trained: name -> factory. A formula makes their families.

Each is registered as an entry point of the group ``effattack.victims``. With ``trained=False`` a
factory builds what its recipe starts from.
"""

from __future__ import annotations

from effattack.models_zoo.files import stored_threshold, with_weights
from effattack.models_zoo.graphs import families
from effattack.models_zoo.graphs.links import LinkPredictor
from effattack.models_zoo.graphs.orthogonal import Transforms

DATA = "effattack.models_zoo.graphs.families"


def family_links(trained: bool = True) -> LinkPredictor:
    """Who is father, mother, grandparent or married to whom, by the neighbourhood in the graph."""
    name = "family_links"
    domain = families.knowledge().domain
    victim = LinkPredictor(
        Transforms(len(domain.entities), len(domain.relations), blocks=8, size=4),
        domain,
        every=2,
        criterion=stored_threshold(name, trained),
        name=name,
        data=f"{DATA}:scored_questions",
    )
    return with_weights(victim, name, trained)
