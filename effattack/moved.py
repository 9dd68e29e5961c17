"""Old import paths, which go on working until version 0.3.0.

Importing one warns, and gives the module at its new place; of those that were parted, whatever of
the new ones has the name.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

END = "0.3.0"
"""The version without them."""
MOVED: dict[str, tuple[str, ...]] = {
    "arrays": ("inputs.arrays",),
    "assembly": (
        "runs.joining",
        "results.frame",
    ),
    "attacks.activations": ("attacks.searches.activations",),
    "attacks.adapters": ("attacks.foreign.adapters",),
    "attacks.auto": ("attacks.house.auto",),
    "attacks.cascade": ("attacks.published.cascade",),
    "attacks.deepsloth": ("attacks.published.deepsloth",),
    "attacks.desparsify": ("attacks.published.desparsify",),
    "attacks.desparsify_losses": ("attacks.published.desparsify_losses",),
    "attacks.evolution": ("attacks.searches.evolution",),
    "attacks.exits_pgd": ("attacks.published.exits_pgd",),
    "attacks.from_foolbox": ("attacks.foreign.from_foolbox",),
    "attacks.from_torchattacks": ("attacks.foreign.from_torchattacks",),
    "attacks.gradauto": ("attacks.published.gradauto",),
    "attacks.gradmdm": ("attacks.published.gradmdm",),
    "attacks.half_budget": ("attacks.smallest.half_budget",),
    "attacks.ilfo": ("attacks.published.ilfo",),
    "attacks.joint": ("attacks.house.joint",),
    "attacks.ladder": ("attacks.smallest.ladder",),
    "attacks.latency_query": ("attacks.house.latency_query",),
    "attacks.libraries": ("attacks.foreign.libraries",),
    "attacks.merging": ("attacks.searches.merging",),
    "attacks.minimal": ("attacks.smallest.minimal",),
    "attacks.penalised": ("attacks.searches.penalised",),
    "attacks.quantattack": ("attacks.published.quantattack",),
    "attacks.quantattack_losses": ("attacks.published.quantattack_losses",),
    "attacks.query": ("attacks.house.query",),
    "attacks.search": (
        "attacks.searches.projected",
        "victim.rounding",
    ),
    "attacks.several": ("attacks.published.several",),
    "attacks.slowdown": ("attacks.house.slowdown",),
    "attacks.slowformer": ("attacks.published.slowformer",),
    "attacks.slowformer_losses": ("attacks.published.slowformer_losses",),
    "attacks.sponge": ("attacks.published.sponge",),
    "attacks.squares": ("attacks.searches.squares",),
    "attacks.training": ("attacks.searches.training",),
    "attacks.transfer": ("attacks.house.transfer",),
    "baseline_paths": ("results.baseline_paths",),
    "baseline_schema": ("results.baseline_schema",),
    "baselines": ("results.baselines",),
    "borders": ("registry.borders",),
    "caveats": ("results.caveats",),
    "changes": ("results.changes",),
    "contract": ("victim.checks",),
    "contract.agreement": ("victim.checks.agreement",),
    "contract.costs": ("victim.checks.costs",),
    "contract.declared": ("victim.checks.declared",),
    "contract.gates": ("victim.checks.gates",),
    "contract.gradients": ("victim.checks.gradients",),
    "contract.images": ("victim.checks.blame",),
    "contract.proxies": ("victim.checks.proxies",),
    "contract.seen": ("victim.checks.seen",),
    "data": ("inputs.source",),
    "deadline": ("runs.deadline",),
    "decisions": ("results.decisions",),
    "digests": ("victim.digests",),
    "door": ("victim.door",),
    "evaluation": (
        "results.evaluation",
        "runs.evaluate",
        "cells.planning",
        "runs.scheduling",
        "runs.joining",
    ),
    "execution": ("cells.performing", "cells.attacking", "cells.timing"),
    "executors": ("runs.executors",),
    "executors.cluster": ("runs.executors.cluster",),
    "executors.in_process": ("runs.executors.in_process",),
    "executors.ray": ("runs.executors.ray",),
    "executors.replies": ("runs.executors.wire",),
    "executors.tickets": ("runs.executors.wire",),
    "executors.worker": ("runs.executors.worker",),
    "executors.workers": ("runs.executors.workers",),
    "fitting": ("attacks.fitting",),
    "folders": ("inputs.folders",),
    "images": ("domains.pixels", "domains.base", "tasks.classes"),
    "levels": ("runs.levels",),
    "limits": ("results.limits",),
    "materials": ("cells.held",),
    "measure.costs": ("counting.costs",),
    "measure.free": ("counting.free",),
    "measure.higher_order": ("counting.higher_order",),
    "measure.macs": ("counting.macs",),
    "measure.modelled": ("counting.joules",),
    "measure.origins": ("counting.origins",),
    "measure.outside": ("counting.outside",),
    "measure.sight": ("counting.sight",),
    "models_zoo.margins": ("victim.margins",),
    "named": ("cells.by_name",),
    "npz": ("inputs.npz",),
    "objectives": ("attacks.objectives",),
    "overview": ("runs.scheduling",),
    "own_code": ("victim.own_code",),
    "pictures": ("inputs.pictures",),
    "planning": ("cells.planning",),
    "plans": ("cells.plan",),
    "resampling": ("results.resampling",),
    "scheduling": ("runs.scheduling",),
    "scores": ("results.scores",),
    "selfchecks": ("results.selfchecks",),
    "sources": ("inputs.readers",),
    "store": ("cells.store",),
    "store.claims": ("cells.store.claims",),
    "store.files": ("results.files",),
    "store.journal": ("cells.store.journal",),
    "sweep": ("runs.sweep",),
    "sweepfile": ("runs.sweepfile",),
    "terminal": ("cli.terminal",),
    "twins": ("victim.twins",),
    "union": ("results.union",),
    "unmeasured": ("results.unmeasured",),
}
"""Old path -> new ones, all below ``effattack``."""


class OldPaths(MetaPathFinder, Loader):
    """Finds the modules of the table; put last, so that nothing that exists is hidden."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        old = name.removeprefix("effattack.")
        if old == name or old not in MOVED:
            return None
        return ModuleSpec(name, self, is_package=any(key.startswith(f"{old}.") for key in MOVED))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = [f"effattack.{place}" for place in MOVED[spec.name.removeprefix("effattack.")]]
        warnings.warn(
            f"{spec.name} is now {' and '.join(new)}; the old path ends with version {END}",
            DeprecationWarning,
            stacklevel=2,
        )
        return _Forwarding(spec.name, new)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run: names are looked up when they are asked for."""


class _Forwarding(ModuleType):
    _new: Sequence[str]

    def __init__(self, name: str, new: Sequence[str]) -> None:
        super().__init__(name)
        self._new = [*new]

    def __getattr__(self, name: str) -> object:
        if not name.startswith("__"):
            for module in map(import_module, self._new):
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def forward() -> None:
    """Let old paths be found; once."""
    if not any(isinstance(finder, OldPaths) for finder in sys.meta_path):
        sys.meta_path.append(OldPaths())
