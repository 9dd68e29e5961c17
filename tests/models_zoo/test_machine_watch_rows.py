"""``benchmarks/machine_watch.py``: the page shows its rows, and they tell what they measured."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from effattack.models_zoo.multimodal import machines
from effattack.models_zoo.multimodal.machine_watch import machine_watch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """As a module; its own folder is on the path when it runs."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import machine_watch

    return machine_watch


def test_the_page_shows_every_row(script: ModuleType) -> None:
    rows = script.kept(script.ROWS)
    planned = {(threat, attack) for threat, attacks in script.threats() for attack in attacks}
    planned |= {(threat, "noise") for threat, _ in planned} | {
        ("no camera", ""),
        ("no vibration", ""),
    }
    made = [(row["threat"], row["attack"]) for row in rows]
    assert sorted(made) == sorted(planned)
    page = (ROOT / "docs" / "multimodal.md").read_text(encoding="utf-8")
    assert f"\n{script.markdown(script.table(rows))}\n" in page


def test_who_misses_a_modality_pays_what_the_others_cost(script: ModuleType) -> None:
    victim = machine_watch()
    batch, labels = script.evenly(*machines.scored_machines(), script.MACHINES)
    assert labels.bincount().tolist() == [20] * len(machines.CLASSES)
    rows = {row["threat"]: row for row in script.kept(script.ROWS)}
    for part in victim.modalities:
        left, _ = machines.without((batch, labels), part)
        with torch.no_grad():
            trace = victim.without(part).trace(left)
        row = rows[f"no {part}"]
        assert row["work"] == pytest.approx(trace.macs.mean().item(), rel=5e-3)
        right = (trace.logits.argmax(1) == labels).double().mean().item()
        assert row["accuracy"] == pytest.approx(right, abs=1.01 / script.MACHINES)


def test_what_an_attack_did_is_told_of_its_samples(script: ModuleType) -> None:
    """Two machines: one was moved from a tenth of its room to all of it, and pays; one was not."""
    samples = script.pd.DataFrame(
        {
            "macs": [100.0, 10.0],
            "clean_macs": [10.0, 10.0],
            "max_macs": [100.0, 100.0],
            "stage_macs": ['{"vibration": 10, "camera": 90}', '{"vibration": 10, "camera": 0}'],
            "right": [False, True],
            "same": [False, True],
        }
    )
    assert script.told(samples) == {
        "clean_work": 10.0,
        "work": 55.0,
        "success": 0.5,
        "paid": 0.5,
        "accuracy": 0.5,
        "agreement": 0.5,
    }
