"""The options of the pytest plugin, each with a twin in the ini file: ``--effattack-eps`` and
``effattack_eps``. The command line wins.

Imports neither torch nor pandas, as the plugin must not.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from effattack.budgets import parse_eps, parse_number
from effattack.errors import UsageError, unknown_name
from effattack.registry import VICTIMS, entries, is_file
from effattack.results.baseline_paths import FOLDER, path_of
from effattack.results.limits import Limit, expect_untimed, parse_limit
from effattack.results.table import called
from effattack.runs.levels import LEVELS, Level, level_of


class Option(NamedTuple):
    """An option without its prefix, and what it takes."""

    name: str
    metavar: str
    help: str
    default: str | None = None
    repeatable: bool = False


OPTIONS = (
    Option(
        "victim",
        "NAME|MODULE:FACTORY|FILE.onnx",
        "what to score: a registered name, a file, or a callable that returns an effattack.Victim "
        "(default: every registered victim)",
    ),
    Option("twin", "NAME|MODULE:FACTORY", "the victim that a file was exported from"),
    Option(
        "through",
        "STEP(...),...",
        "pre-processing inside the victim's door: resize(256),center_crop(224),jpeg(90)",
    ),
    Option(
        "data",
        "PATH|MODULE:FACTORY",
        "folder by class, .npz with inputs and labels, or a callable that returns both",
    ),
    Option(
        "fit-data",
        "PATH|MODULE:FACTORY",
        "what universal attacks learn from (default: inputs of the data that are not scored)",
    ),
    Option(
        "level",
        "|".join(LEVELS),
        "how thorough effattack.suites are: inputs, attacks and seeds (quick)",
        default="quick",
    ),
    Option(
        "attack", "NAME", "attack, or shifts, repeatable (default: the level's)", repeatable=True
    ),
    Option("eps", "EPS", "l-inf budget, of images in [0, 1] pixels (8/255)"),
    Option(
        "threat",
        "THREAT",
        "what may be changed, in place of EPS: l2:1.0, linf:.1sd, module:Class(option=value)",
    ),
    Option("samples", "N", "inputs to score (default: the level's)"),
    Option("batch-size", "N", "inputs per timed call: your deployment's (1)", default="1"),
    Option(
        "certify",
        "KIND",
        "a certificate beside the attacks, which limits may judge: auto, or a kind of effattack "
        "certify (none)",
    ),
    Option("by", "COUNT", "judge by another audited count than the victim's currency"),
    Option(
        "score",
        "NAME|MODULE:OBJECT",
        "a score from outside that tables show, too; repeatable",
        repeatable=True,
    ),
    Option(
        "fail-below",
        "SCORE=VALUE",
        "limit on the worst inside the budget, on a score where less is worse; repeatable",
        repeatable=True,
    ),
    Option(
        "fail-above",
        "SCORE=VALUE",
        "limit on the worst inside the budget, on a score where more is worse; repeatable",
        repeatable=True,
    ),
    Option("save", "NAME", "save what was scored as a baseline of that name"),
    Option("compare", "NAME", "fail what got worse since the baseline of that name"),
    Option("baselines", "DIR", f"folder of baselines ({FOLDER}/)", default=FOLDER),
    Option(
        "replay",
        "CORPUS",
        "judge on the worst inputs of an earlier run, a file or a folder of them, by forward "
        "passes alone; nothing is attacked, timed or written",
    ),
    Option(
        "corpus-mb", "MB", "size of a corpus kept in DIR/corpus, at most; 0: none (2)", default="2"
    ),
    Option(
        "out",
        "DIR",
        "keep finished cells here (the same command resumes), and write frames and a report",
    ),
)


def add_options(parser: pytest.Parser) -> None:
    """Tell pytest of every option and its twin."""
    group = parser.getgroup("effattack", "how much of a model's savings an attacker takes back")
    for option in OPTIONS:
        group.addoption(
            f"--effattack-{option.name}",
            action="append" if option.repeatable else "store",
            metavar=option.metavar,
            help=option.help.replace("%", "%%"),
        )
        kind: Literal["linelist", "string"] = "linelist" if option.repeatable else "string"
        parser.addini(
            f"effattack_{option.name.replace('-', '_')}",
            f"--effattack-{option.name}, unless the command line gives it",
            type=kind,
            default=option.default,
        )


@dataclass(frozen=True)
class Settings:
    """The options, read and checked."""

    victim: str
    """What the user wants scored; empty for the registered victims."""
    twin: str
    through: str
    data: str
    fit_data: str
    level: str
    attacks: list[str]
    budget: float | str | None
    """An l-inf radius, or the text of a threat; None: the usual one of the inputs."""
    by: str | None
    """The count that judges; None: the victim's currency."""
    certify: str | None
    """Kind of certificate beside the attacks; None: none."""
    samples: int
    batch_size: int
    limits: list[Limit]
    save: Path | None
    """Where the baseline goes."""
    compare: Path | None
    """The baseline to compare with."""
    out: Path | None
    replay: Path | None
    """The corpora that take the place of attacks."""
    corpus_mb: float

    @property
    def thoroughness(self) -> Level:
        """What the level says."""
        return LEVELS[self.level]

    @property
    def scores_the_registered(self) -> bool:
        """Whether the registered victims are scored on the level's images, and nothing else is."""
        others = self.victim or self.through or self.data or self.replay
        return not others and self.samples == self.thoroughness.samples


def settings_of(config: pytest.Config) -> Settings:
    """The settings that command line and ini file describe.

    Raises:
        UsageError: for an option with a value that it cannot have.
    """

    def several(name: str) -> list[str]:
        found = config.getoption(f"--effattack-{name}")
        if found is None:
            found = config.getini(f"effattack_{name.replace('-', '_')}")
        values = [found] if isinstance(found, str) else found
        if values is None:
            return []
        if not values or not all(value.strip() for value in values):
            raise UsageError(
                f"--effattack-{name} is empty, as an unset variable leaves it: give a value, or "
                "leave it out"
            )
        return list(values)

    def single(name: str) -> str:
        return "".join(several(name))

    folder = config.invocation_params.dir
    victim, level, out = single("victim"), single("level"), single("out")
    known = entries(VICTIMS)
    if victim and not (":" in victim or is_file(victim) or victim in known):
        raise unknown_name("victim", victim, known)
    standard = level_of(level).samples
    for name in several("score"):
        called(name)
    baselines = config.rootpath / single("baselines")
    save, compare = (
        path_of(name, baselines) if name else None for name in (single("save"), single("compare"))
    )
    if certify := single("certify"):
        from effattack.certify.kinds import check_kind

        check_kind(certify)
    limits = [
        *(parse_limit(text, fail_below=True) for text in several("fail-below")),
        *(parse_limit(text, fail_below=False) for text in several("fail-above")),
    ]
    if replay := single("replay"):
        _expect_nothing_written(config)
        expect_untimed(limits)
        save, compare, out = None, None, ""
    if compare and compare != save:
        from effattack.results.baselines import Baseline

        Baseline.load(compare)  # a file that cannot be used is told before any test runs
    return Settings(
        victim=victim,
        twin=single("twin"),
        through=single("through"),
        data=single("data"),
        fit_data=single("fit-data"),
        level=level,
        attacks=several("attack"),
        by=single("by") or None,
        certify=certify or None,
        budget=_budget(single("eps"), single("threat")),
        samples=_count("samples", single("samples")) if single("samples") else standard,
        batch_size=_count("batch-size", single("batch-size")),
        limits=limits,
        save=save,
        compare=compare,
        out=folder / out if out else None,
        replay=folder / replay if replay else None,
        corpus_mb=_size(single("corpus-mb")),
    )


def _expect_nothing_written(config: pytest.Config) -> None:
    """Refuse what a replay has no use for; the ini file's are for the other runs."""
    unused = [
        f"--effattack-{name}"
        for name in ("save", "compare", "out")
        if config.getoption(f"--effattack-{name}") is not None
    ]
    if unused:
        raise UsageError(
            "--effattack-replay attacks nothing, compares with no baseline and writes nothing: "
            f"leave {', '.join(unused)} out"
        )


def _budget(eps: str, threat: str) -> float | str | None:
    if eps and threat:
        raise UsageError("--effattack-eps and --effattack-threat: give one of them")
    return parse_eps(eps) if eps else threat or None


def _size(text: str) -> float:
    size = parse_number(text, f"--effattack-corpus-mb {text!r}")
    if not 0 <= size < inf:
        raise UsageError(f"--effattack-corpus-mb {text!r}: give 0 or more")
    return size


def _count(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--effattack-{name} {text!r}: give a whole number, 1 or more")
    return int(text)
