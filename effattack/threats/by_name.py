"""Threats by name: ours, those that packages register, and ``module:Class``."""

from __future__ import annotations

from effattack.domains import Arrays, Domain, Parts
from effattack.errors import EffattackError, UsageError
from effattack.registry import entries, named, outside, read_name
from effattack.threats.balls import Linf
from effattack.threats.base import Threat
from effattack.threats.forms import GROUP, forms
from effattack.threats.parts import OfParts

BUILT_IN = {
    "linf": "effattack.threats.balls:Linf",
    "l2": "effattack.threats.balls:L2",
    "l1": "effattack.threats.balls:L1",
    "pixels": "effattack.threats.sparse:L0",
    "patch": "effattack.threats.sparse:Patch",
    "window": "effattack.threats.sparse:Window",
    "size": "effattack.threats.size:Size",
    "box": "effattack.threats.whole:Box",
    "suffix": "effattack.threats.edits:Suffix",
    "prefix": "effattack.threats.edits:Prefix",
    "swap": "effattack.threats.edits:Swaps",
    "chars": "effattack.threats.characters:Characters",
    "edges": "effattack.threats.links:NewEdges",
    "none": "effattack.threats.whole:Nothing",
}
"""What a threat is called -> its class, which loads when it is named."""


def names() -> list[str]:
    """What stands before the size: ours, and those of installed packages."""
    return [*BUILT_IN, *outside(GROUP, BUILT_IN)]


def threat_class(name: str) -> type[Threat]:
    """The class that a threat's name, or a path ``package.module:Class``, stands for.

    Raises:
        UsageError: for a name that nobody registered, a path that does not import, or no threat.
    """
    return _class(BUILT_IN.get(name, name))


def parse_threat(text: str) -> Threat:
    """The threat that is written as ``linf:8/255``, ``patch:16@4,4``, ``suffix:10`` or ``box``.

    The name before the colon is one of ours or of the entry points ``effattack.threats``; behind it
    stands the size. Any other class is written as ``package.module:Class(option=value)``. Of inputs
    of several parts, the part comes first: ``image:linf:8/255``, or with a budget in two of them
    ``image:linf:8/255+question:suffix:3``.

    Raises:
        UsageError: for any other text, or a size that is none.
    """
    name, _, size = text.partition(":")
    try:
        if name in BUILT_IN:
            return _class(BUILT_IN[name]).read(size)
        if name in entries(GROUP):
            return _class(name).read(size)
        if (inner := size.partition(":")[0]) in BUILT_IN or inner in entries(GROUP):
            return _of_parts(text)
        path, options = read_name(text)
        if path.partition(":")[2].isidentifier():
            return _class(path)(**options)
    except EffattackError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{text!r} is no threat ({error}): write {forms('')}") from error
    raise UsageError(f"{text!r} is no threat: write {forms('')}")


def _of_parts(text: str) -> OfParts:
    """Threats behind the names of their parts, joined by plus signs."""
    pairs = (part.partition(":") for part in text.split("+"))
    return OfParts({part: parse_threat(threat) for part, _, threat in pairs})


def usual_threat(domain: Domain) -> Threat:
    """What an attacker may change where nobody says it.

    Of images 8/255 in l-inf; of series a tenth of the declared deviation, else the same share of
    the range as of images, one step at least; of tokens ten behind the prompt; of a graph two
    edges; of several parts, that of the first.
    """
    if isinstance(domain, Parts):
        name, part = next(iter(domain.parts.items()))
        return OfParts({name: usual_threat(part)}).on(domain)
    if not isinstance(domain, Arrays):
        return parse_threat("edges:2" if domain.kind == "graph" else "suffix:10").on(domain)
    if domain.deviation is not None:
        return Linf(0.1, unit="sd").on(domain)
    return Linf(max(8 / 255 * (domain.high - domain.low), domain.step or 0.0)).on(domain)


def _class(path: str) -> type[Threat]:
    found = named(GROUP, path)
    if not (isinstance(found, type) and issubclass(found, Threat)):
        raise UsageError(f"{path} is {found!r}, no class of effattack.threats.Threat: name one")
    return found
