"""The store: whole or not at all, claimed once, and what is said when it cannot be written."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from test_cells import SPEC

from effattack.cells.store import Memory, Store
from effattack.cells.store.journal import changes
from effattack.errors import StoreError, UsageError

ROWS = pd.DataFrame({"sample": [0, 1], "image": [b"\x00\x01", b"\x02\x03"]})
OTHER = replace(SPEC, seed=9)
OWNER = """
import sys, time
from pathlib import Path
from effattack.cells.store.claims import claimed

with claimed(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cells")


def test_a_cell_comes_back_as_it_was(store: Store) -> None:
    for shelf in (store, Memory()):
        assert not shelf.has(SPEC)
        assert shelf.read(SPEC) is None
        shelf.write(SPEC, ROWS)
        assert shelf.has(SPEC)
        pd.testing.assert_frame_equal(shelf.read(SPEC), ROWS)
        shelf.remove(SPEC)
        assert not shelf.has(SPEC)


def test_nothing_else_is_left_behind(store: Store) -> None:
    store.write(SPEC, ROWS)
    names = {path.name for path in store.folder.iterdir()}
    assert names == {f"{SPEC.key}.parquet", f"{SPEC.key}.sha256", "claims", "store.json"}


def test_damage_is_seen(store: Store) -> None:
    store.write(SPEC, ROWS)
    file = store.path(SPEC)
    whole = file.read_bytes()
    for damaged in (whole[:40], b"", whole[:60] + bytes([whole[60] ^ 1]) + whole[61:]):
        file.write_bytes(damaged)
        assert store.read(SPEC) is None
    file.write_bytes(whole)
    assert store.read(SPEC) is not None


def test_a_digest_that_never_reached_the_disk(store: Store) -> None:
    store.write(SPEC, ROWS)
    store.path(SPEC).with_suffix(".sha256").write_bytes(b"")
    assert not store.has(SPEC)
    store.write(SPEC, ROWS)
    assert store.has(SPEC)


def test_pickles_are_not_read(store: Store) -> None:
    store.write(SPEC, ROWS)
    ROWS.to_pickle(store.path(SPEC))
    digest = hashlib.sha256(store.path(SPEC).read_bytes()).hexdigest()
    store.path(SPEC).with_suffix(".sha256").write_text(digest)
    assert store.read(SPEC) is None


def test_a_store_of_a_newer_version(store: Store) -> None:
    (store.folder / "store.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UsageError, match=r"newer effattack \(format 99, .*update effattack"):
        Store(store.folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "x"}'])
def test_a_store_that_does_not_tell_its_version(store: Store, text: str) -> None:
    (store.folder / "store.json").write_text(text)
    with pytest.raises(UsageError, match=r"store.json is damaged: remove it"):
        Store(store.folder)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"cannot write to .*--out"):
        Store(tmp_path / "file" / "cells")


def test_a_claim_is_held_once_and_ends(store: Store) -> None:
    with store.claim(SPEC) as mine, store.claim(SPEC) as again, store.claim(OTHER) as other:
        assert (mine, again, other) == (True, False, True)
        running = store.running()
        assert running.keys() == {SPEC.key, OTHER.key}
        assert running[SPEC.key]["pid"] == os.getpid()
    assert not store.running()
    with store.claim(SPEC) as mine:
        assert mine


def test_a_killed_owner_loses_its_claim(store: Store) -> None:
    path = store.folder / "claims" / SPEC.key
    code = "import sys, time\nfrom pathlib import Path\n"
    code += "from effattack.cells.store.claims import claimed\n"
    code += "with claimed(Path(sys.argv[1])): print('mine', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", code, str(path)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "mine\n"
    with store.claim(SPEC) as mine:
        assert not mine
    assert store.running()[SPEC.key]["pid"] == owner.pid
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert path.exists()
    assert not store.running()
    with store.claim(SPEC) as mine:
        assert mine


def test_a_torn_line_costs_no_other(store: Store) -> None:
    store.record(SPEC, "done", seconds=1.0)
    with store.journal.path.open("a") as file:
        file.write('{"state": "do')
    store.record(OTHER, "failed", error="because")
    assert [entry["state"] for entry in store.journal] == ["done", "failed"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"code": "0.1.0+def"}, "the code of effattack changed (0.1.0+abc → 0.1.0+def)"),
        ({"data_digest": "e"}, "the data changed (d → e)"),
        ({"victim_digest": "w", "torch": "3"}, "torch changed (2.15.0 → 3), the victim changed"),
    ],
)
def test_why_a_cell_is_run_again(store: Store, change: dict, reason: str) -> None:
    store.record(SPEC, "done")
    (told,) = changes(store.journal, [replace(SPEC, **change), OTHER])
    assert told.startswith(reason)
    assert not changes(store.journal, [SPEC, OTHER])


def test_a_full_disk(store: Store) -> None:
    """A limit on the size of files stands for it: the same call fails in the same way."""
    store.write(OTHER, ROWS)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(StoreError, match=r"any more .*finished cells are safe"):
            store.write(SPEC, ROWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not store.has(SPEC)
    assert not list(store.folder.glob("*.draft"))
    pd.testing.assert_frame_equal(store.read(OTHER), ROWS)


@pytest.mark.parametrize(
    "line",
    [
        b'{"state": "done"}',
        b'{"state": "done", "spec": null}',
        b'{"state": "done", "spec": {"settings": 3}}',
        b'{"state": ["done"], "spec": {}}',
        b"[" * 100_000,
        b"\xff\x00",
        b"9" * 5000,
    ],
)
def test_a_damaged_journal_decides_nothing(store: Store, line: bytes) -> None:
    store.record(SPEC, "done")
    with store.journal.path.open("ab") as file:
        file.write(line + b"\n")
    assert not changes(store.journal, [SPEC])
    assert changes(store.journal, [replace(SPEC, code="other")])
    store.journal.path.unlink()
    store.journal.path.mkdir()
    assert not changes(store.journal, [SPEC])


def test_a_real_full_disk_that_turns_read_only(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        store = Store(disk / "cells")
        store.write(OTHER, ROWS)
        (disk / "filler").write_bytes(os.urandom(2**15))
        large = pd.DataFrame({"image": [os.urandom(2**16)]})
        with pytest.raises(StoreError, match=r"No space left on device.*make room"):
            store.write(SPEC, large)
        assert not store.has(SPEC)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StoreError, match="Read-only file system"):
            store.write(SPEC, ROWS)
        pd.testing.assert_frame_equal(store.read(OTHER), ROWS)
        with pytest.raises(UsageError, match="cannot write to"):
            Store(disk / "cells")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
