"""Where code comes from: hashes of the files behind a user's classes and functions.

A user's own code is every module outside the library folders of this Python that no installer put
where it is (``pip install --target``). What decides rows is the whole module of a class, constants
and helpers included, and all own modules that it imports, directly or not. An installed package is
known by the hashes of its files that its installer noted down; torch and effattack have versions of
their own in every cell.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import importlib.metadata
import importlib.util
import site
import sys
import sysconfig
from collections.abc import ItemsView, Iterator, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path

SHIPPED = frozenset({"builtins", "torch", "effattack"}) | sys.stdlib_module_names - {"__main__"}
"""Top-level packages that another part of a cell's specification knows, or that never change."""


def origin(module: str) -> str:
    """Hash of the files behind a module; empty where there is none, as in a notebook."""
    if package(module) in SHIPPED:
        return ""
    if (file := _file(module)) is None:
        return ""
    if (noted := _noted(file)) is not None:
        return _listed(noted)
    if not _own(file):
        return _installed(package(module))
    files = sorted((name, _parsed(path, *_stamp(path))[0]) for name, path in _closure(module, file))
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]


def is_own(module: str) -> bool:
    """Whether a module is the user's: a script, a notebook, a file outside the libraries."""
    return package(module) not in SHIPPED and ((file := _file(module)) is None or _own(file))


def package(module: str) -> str:
    """The top-level package of a dotted name."""
    return module.partition(".")[0]


def _closure(module: str, file: Path) -> ItemsView[str, Path]:
    """The module and all own modules that it imports, by name."""
    found, waiting = {module: file}, [module]
    while waiting:
        importer = waiting.pop()
        for name in _imports(importer, found[importer]):
            path = None if package(name) in SHIPPED else _file(name)
            if name not in found and path is not None and _own(path):
                found[name] = path
                waiting.append(name)
    return found.items()


def _imports(module: str, file: Path) -> Iterator[str]:
    """Names that may be modules: ``from a import b`` gives ``a`` and ``a.b``."""
    is_package = file.name.startswith("__init__.")
    parts = module.split(".")
    for level, name in _parsed(file, *_stamp(file))[1]:
        base = parts[: len(parts) - level + is_package] if level else []
        whole = [*base, *filter(None, name.split("."))]
        yield from (".".join(whole[:end]) for end in range(1, len(whole) + 1))


@lru_cache(maxsize=4096)
def _parsed(file: Path, changed: int, size: int) -> tuple[str, tuple[tuple[int, str], ...]]:
    """Hash of a file, and its imports as (level, name); an extension module has none."""
    data = file.read_bytes()
    digest, found = hashlib.sha256(data).hexdigest(), []
    if file.suffix == ".py":
        for node in ast.walk(ast.parse(data)):
            if isinstance(node, ast.Import):
                found += [(0, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = f"{node.module}." if node.module else ""
                found += [(node.level, f"{start}{alias.name}") for alias in node.names]
    return digest, tuple(found)


def _stamp(file: Path) -> tuple[int, int]:
    """When a file was changed and its size: what a reading of it is true for."""
    about = file.stat()
    return about.st_mtime_ns, about.st_size


def _file(module: str) -> Path | None:
    """The file of a module, loaded or not; None where there is none."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        name = getattr(loaded, "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, AttributeError, ValueError):
            return None
        name = spec.origin if spec is not None else None
    return Path(name).resolve() if name and Path(name).is_file() else None


@cache
def _libraries() -> tuple[Path, ...]:
    """The folders of installed packages and of Python's own modules."""
    paths = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(Path(path).resolve() for path in paths if path)


def _own(file: Path) -> bool:
    in_libraries = any(file.is_relative_to(folder) for folder in _libraries())
    return not in_libraries and _noted(file) is None


def _noted(file: Path) -> Path | None:
    """The list of an installer that names a file, outside the libraries; None where there is none.

    It stands beside what it lists; that of an editable install names no source.
    """
    if any(file.is_relative_to(folder) for folder in _libraries()):
        return None
    found = (_lists(folder).get(str(file.relative_to(folder))) for folder in file.parents)
    return next(filter(None, found), None)


@cache
def _listed(record: Path) -> str:
    """Hash of what a list says of a package's files, without those about the installation."""
    lines = record.read_text(encoding="utf-8").splitlines()
    told = [line for line in lines if ".dist-info/" not in line and "__pycache__/" not in line]
    return hashlib.sha256("\n".join(sorted(told)).encode()).hexdigest()[:16]


@cache
def _lists(folder: Path) -> Mapping[str, Path]:
    """Path below a folder -> the list of an installer there that names it."""
    with suppress(OSError):
        return {
            str(Path(row[0])): record
            for record in sorted(folder.glob("*.dist-info/RECORD"))
            for row in csv.reader(record.read_text(encoding="utf-8").splitlines())
            if row
        }
    return {}


@cache
def _installed(package: str) -> str:
    """Hash of what the installer noted down of a package's files; its version where it did not."""
    texts = []
    for name in sorted(set(_distributions().get(package, ()))):
        distribution = importlib.metadata.distribution(name)
        texts.append(distribution.read_text("RECORD") or f"{name} {distribution.version}")
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:16] if texts else ""


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Package -> what installed it; reads the lists of files of all there are."""
    return importlib.metadata.packages_distributions()
