"""What was learnt on other tasks: deltas of one kind and model, with names, and how one of them begins the next.

zoo = Zoo()
zoo.add("snli", delta, track="inference", vector=mean_of_its_texts)
tune(model, data, recipe | Recipe(start=From(zoo["snli"].delta)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from handful.core.library import Library
from handful.errors import BadInput, nearest
from handful.tune.delta import Delta
from handful.tune.recipe import Data, Readout


def same_kind(deltas: Sequence[Delta], least: int = 2) -> None:
    """Raise `BadInput` unless there are ``least`` or more, of the same changes at the same sites of one model."""
    if len(deltas) < least:
        raise BadInput(f"this takes {least} or more sets of changes, not {len(deltas)}")
    first = deltas[0]
    for number, delta in enumerate(deltas[1:], start=1):
        if delta.fingerprint != first.fingerprint or delta.placed() != first.placed():
            raise BadInput(f"changes number {number} are of another kind, or of another model, than number 0")


@dataclass(frozen=True)
class From:
    """Fills the slot ``start``: the delta begins with what another has learnt.

    Args:
        source: of the same changes at the same sites.
    """

    source: Delta

    def __call__(
        self, delta: Delta, model: nn.Module, readout: Readout, data: Data, loss: Callable[[Any], Tensor]
    ) -> None:
        """See `handful.tune.recipe.Start`. Raises `BadInput` where the two are not of one kind."""
        same_kind([self.source, delta])
        delta.load_state_dict(self.source.state_dict())


@dataclass(frozen=True)
class Member:
    """One task of a zoo.

    Args:
        name: of the task.
        delta: what was learnt.
        track: its family, such as ``"inference"``.
        vector: of the task ``[d]``, such as the mean of its texts' features.
    """

    name: str
    delta: Delta
    track: str = ""
    vector: Tensor | None = None


class Zoo:
    """Deltas of one kind and one model, by name."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}

    def add(self, name: str, delta: Delta, *, track: str = "", vector: Tensor | None = None) -> None:
        """Keep what was learnt on a task; see `Member`.

        Raises:
            BadInput: the name is taken; the delta is of another kind than those that are there.
        """
        if name in self._members:
            raise BadInput(f"the zoo has a member {name!r} already")
        same_kind([*(member.delta for member in self), delta], least=1)
        self._members[name] = Member(name, delta, track, vector)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def __getitem__(self, name: str) -> Member:
        if name not in self._members:
            raise BadInput(f"the zoo has no member {name!r}{nearest(name, self._members)}")
        return self._members[name]

    def chosen(self, track: str | None = None, near: Tensor | None = None, k: int | None = None) -> list[Member]:
        """Those of a track, the nearest to a task first where one is given.

        Args:
            track: a family; all by default.
            near: vector of a task ``[d]``, by whose cosine they are ranked.
            k: how many of them, at most.

        Raises:
            BadInput: no member is of that track; a member has no vector; k is below 1.
        """
        found = [member for member in self if track is None or member.track == track]
        if not found:
            raise BadInput(f"no member of the zoo is of track {track!r}{nearest(str(track), {m.track for m in self})}")
        if k is not None and k < 1:
            raise BadInput(f"k is {k}; it must be at least 1")
        if near is not None:
            library = Library()
            for member in found:
                if member.vector is None:
                    raise BadInput(f"member {member.name!r} has no vector, so that it cannot be near to anything")
                library.add(member.name, torch.as_tensor(member.vector))
            found = [self[one.name] for one in library.search(near)]
        return found[:k]
