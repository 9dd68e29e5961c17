"""Where ``effattack run`` runs its cells: in this process, on local workers, or on Ray."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from effattack.errors import UsageError

if TYPE_CHECKING:
    from effattack.cells.attacking import Watch
    from effattack.runs.executors import Executor


def arguments(run: argparse.ArgumentParser) -> None:
    where = run.add_argument_group("where to run it")
    where.add_argument(
        "--workers",
        nargs="?",
        type=int,
        const=0,
        metavar="N",
        help="local processes; without N, one per GPU, or one per core (that, if there is work "
        "and memory for it; else in this process)",
    )
    where.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="a Ray cluster; without ADDRESS, one on this machine alone",
    )
    where.add_argument(
        "--gpus", type=float, metavar="N", help="GPUs of a cell on Ray; below 1 without timing (1)"
    )
    where.add_argument("--timeout", type=float, metavar="SECONDS", help="of a cell")


def executor_of(options: argparse.Namespace, watch: Watch) -> Executor:
    """The executor that the options name; ``watch`` is told of the steps in this process."""
    if options.workers is not None and options.ray is not None:
        raise UsageError("--workers and --ray: give one of them")
    if options.ray is not None:
        from effattack.runs.executors.ray import Ray

        address = None if options.ray == "local" else options.ray
        return Ray(address, gpus=options.gpus, timeout=options.timeout)
    if options.gpus is not None:
        raise UsageError("--gpus is for --ray; local workers take one GPU each")
    if options.workers is not None:
        from effattack.runs.executors.workers import Workers

        return Workers(options.workers or None, options.timeout)
    if options.timeout is not None:
        raise UsageError("--timeout needs a process that can be ended: add --workers 1")
    from effattack.runs.executors.local import Local

    return Local(watch)
