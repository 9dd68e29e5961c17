"""The real entry: a victim behind the decoder, resize and compression that stand before it.

The attacker owns a file, of its own size and on the grid of 8 bits; not the tensor that the model
computes on. Both paths take the value of the real codec, one input at a time; only the gradient is
that of differentiable stand-ins (:mod:`.steps`). So the contract holds as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from effattack.counting.outside import outside
from effattack.counting.tallies import Count, tally
from effattack.domains import Pixels
from effattack.errors import UsageError
from effattack.victim.around import declared
from effattack.victim.contract import Victim
from effattack.victim.draws import OverDraws
from effattack.victim.entry.steps import Step
from effattack.victim.trace import Ran, Trace

MOST_PIXELS = 89_478_485
"""That a file may declare unless told otherwise: the limit of which Pillow warns."""


class Entry(Victim):
    """A victim with pre-processing inside its door.

    ``Entry(victim, through=[resize(256), center_crop(224), jpeg(90)])`` takes files of any size;
    where no resize comes first, files of the victim's own size, or of ``size``. Rounded to 8 bits,
    each goes through the steps as Pillow does them, and then into the victim. Beside the victim's
    counts it has ``declared_pixels``, by which decoding and resizing cost; their
    time stands with the score as ``codec``.

    A step that draws (``random_crop``, ``random_flip``) is fixed by the seed and the file's digest,
    alike in both paths and in every batch. Searches take draws of their own, and means over several
    (:meth:`searched`); what they return is judged on the deployed draw, which they never saw.

    Args:
        victim: of images of 1 or 3 channels.
        through: the steps, in their order.
        size: (H, W) of the files, where it is fixed.
        most_pixels: of a file; one that declares more is refused. None: any.
        seed: of the steps that draw.
        draws: that searches average over, where steps draw.
        name: by default the victim's, and the steps.

    Raises:
        UsageError: for another kind of input, no steps, or steps that do not end in images of the
            victim's size.
    """

    domain: Pixels

    def __init__(
        self,
        victim: Victim,
        through: Sequence[Step],
        *,
        size: tuple[int, int] | None = None,
        most_pixels: int | None = MOST_PIXELS,
        seed: int | str = 0,
        draws: int = 8,
        name: str | None = None,
    ) -> None:
        _expect_images(victim, through)
        channels, *own = victim.domain.shape
        sizes = size or ((None, None) if through[0].frees else own)
        super().__init__(
            **declared(
                victim,
                name=name or f"{victim.name} through {', '.join(map(str, through))}",
                domain=Pixels((channels, *sizes), most=most_pixels),
                counts={**victim.counts, "declared_pixels": Count("declared pixel", _declared)},
            )
        )
        self.sees = victim.sees
        self.victim, self.through = victim, tuple(through)
        self.size, self.seed, self.draws = size, seed, draws
        self.by_file = True
        _expect_ends(self)

    def forward(self, batch: Tensor) -> Tensor:
        tally("declared_pixels", _declared(batch).sum())
        return self.victim(self.opened(batch))

    def trace(self, batch: Tensor) -> Trace:
        found = self.victim.trace(self.opened(batch))
        return found._replace(also={**found.also, "declared_pixels": _declared(batch)})

    @property
    def answer_form(self) -> Mapping[str, Any]:
        """Without columns: places in answers are those of what the steps made of a file."""
        return {key: told for key, told in self.victim.answer_form.items() if key != "columns"}

    def opened(self, files: Tensor) -> Tensor:
        """What the victim inside is given for files (B, C, H, W); differentiable.

        Args:
            files: in [0, 1].

        Raises:
            UsageError: for files that declare more pixels than are taken, or that a step refuses.
        """
        self.domain.check_declared(files)
        with outside("codec"):
            return torch.cat([*self._each(files)])

    def _each(self, files: Tensor) -> Iterator[Tensor]:
        digests = self.domain.fingerprints(files) if self.by_file else [""] * len(files)
        for image, digest in zip(files.split(1), digests, strict=True):
            for place, step in enumerate(self.through):
                image = step(image, f"{self.seed} 0 {place} {digest}")
            yield image

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        if count == "declared_pixels":
            return _declared(batch)
        fixed = None not in self.victim.domain.shape
        seen = self.victim.example(1) if fixed else self.opened(batch[:1])
        return self.victim.ceiling(seen, count).expand(len(batch))

    def in_float64(self) -> Entry | None:
        inside = self.victim.in_float64()
        return None if inside is None else self.around(inside)

    def around(self, victim: Victim) -> Entry:
        """The same entry before another victim."""
        return Entry(
            victim,
            self.through,
            size=self.size,
            most_pixels=self.domain.most,
            seed=self.seed,
            draws=self.draws,
            name=self.name,
        )

    def seeded(self, seed: int | str) -> Entry:
        """The same entry with other draws, where steps draw."""
        found = self.around(self.victim)
        found.seed = seed
        return found

    def searched(self, seed: int) -> Victim:
        """Where steps draw: means over as many draws as ``draws`` says, none a deployed one."""
        inside = self.victim.searched(seed)
        found = self if inside is self.victim else self.around(inside)
        if not any(step.draws for step in self.through):
            return found
        return OverDraws(self, [found.seeded(f"search {seed} {k}") for k in range(self.draws)])

    @property
    def checked(self) -> Entry | None:
        """Before what the victim inside is checked on, and where steps draw, with one draw for all.

        A gradient is that of one draw: a change of the file must not bring another.
        """
        inside = self.victim.checked
        if inside is None:
            return None
        entry = self.around(inside)
        entry.by_file = False
        return entry

    def ran(self, single: Tensor) -> Ran | None:
        """What an artefact inside did with a file, and the pixels that it declares."""
        if type(self.victim).ran is Victim.ran:
            return None
        found = self.victim.ran(self.opened(single))
        return found and found._replace(
            counts={**found.counts, "declared_pixels": _declared(single).item()}
        )

    @property
    def correction(self) -> str:
        return self.victim.correction


def _declared(files: Tensor) -> Tensor:
    """(B,) float64: how many pixels each file declares."""
    height, width = files.shape[-2:]
    return torch.full((len(files),), height * width, dtype=torch.float64, device=files.device)


def _expect_images(victim: Victim, through: Sequence[Step]) -> None:
    if victim.domain.kind != "pixels" or victim.domain.shape[0] not in (1, 3):
        raise UsageError(
            f"{victim.name} takes {victim.domain.nouns} of shape {victim.domain.shape}: files have "
            "1 or 3 channels, give a victim of such images"
        )
    if not through or not all(isinstance(step, Step) for step in through):
        raise UsageError(
            f"through = {list(through)!r}: give steps, such as [resize(256), center_crop(224)]"
        )


def _expect_ends(entry: Entry) -> None:
    """Refuse steps that do not end in what the victim inside takes."""
    if None in entry.domain.shape and not entry.through[0].frees:
        raise UsageError(f"{entry.name}: give the size=(H, W) of the files, or put a resize first")
    with torch.no_grad():
        seen = entry.opened(entry.domain.example(1))
    if not entry.victim.domain.fits(seen):
        raise UsageError(
            f"{entry.name}: a file of {_size(entry.domain.example(1))} pixels ends as "
            f"{_size(seen)}, and {entry.victim.name} takes {entry.victim.domain.shape}: let the "
            "steps end in its size"
        )


def _size(images: Tensor) -> str:
    return " x ".join(map(str, images.shape[-2:]))
