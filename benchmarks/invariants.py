"""What the contract costs: CPU seconds per victim, beside its bare forward, and of a whole run.

    python benchmarks/invariants.py            # the four default victims: seconds
    python benchmarks/invariants.py --run      # and their share of a cold `effattack run`: minutes

CPU time of one thread, so that neighbours do not count.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from effattack.cli.sweep_options import DEFAULT_VICTIMS
from effattack.inputs.source import load_data, subset
from effattack.results.selfchecks import CHECKED, check_victim
from effattack.victim import load_victim
from effattack.victim.undisturbed import undisturbed

SCORED = 200
"""Images of a default run."""
REPEATS = 5
RUN = "import sys; from effattack.cli import main; sys.exit(main(sys.argv[1:]))"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--run", action="store_true", help="also make a cold default run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| victim | forward, ms per image | contract, s | in forwards of one image |")
    print("|---|---:|---:|---:|")
    contract = sum(map(row, DEFAULT_VICTIMS))
    if options.run:
        whole = cold_run()
        print(f"\ncontract {contract:.1f} s of {whole:.0f} s: {contract / whole:.1%} of a cold run")


def row(name: str) -> float:
    """Print the line of a victim; the CPU seconds of its contract."""
    victim = load_victim(name)
    images, _ = subset(*load_data(None, victim), SCORED)
    images = images[: CHECKED // 2]
    with undisturbed(victim), torch.no_grad():
        victim(images[:1])
        started = time.process_time()
        for _ in range(REPEATS):
            for image in images.split(1):
                victim(image)
        forward = (time.process_time() - started) / (REPEATS * len(images))
        started = time.process_time()
        check_victim(victim, images)
        contract = time.process_time() - started
    print(
        f"| {name} | {forward * 1e3:.2f} | {contract:.2f} | {contract / forward:,.0f} |", flush=True
    )
    return contract


def cold_run() -> float:
    """CPU seconds of ``effattack run`` into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", RUN, "run", "--quiet", "--out", str(Path(folder) / "out")]
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
