"""Labels in a tree: ``"a > b > c"`` is c below b below a. Every label has as many levels as the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from handful.errors import BadInput

SEPARATOR = " > "


@dataclass(frozen=True)
class Hierarchy:
    """See `handful.core.hierarchy`.

    Args:
        levels: labels of each level, coarse to fine, sorted; a label is named by its whole path.
    """

    levels: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, paths: Iterable[str]) -> Hierarchy:
        """The tree whose leaves these are. Raises `BadInput` for an empty name, or paths of different length."""
        every = list(paths)
        for path in every:
            if not isinstance(path, str):
                raise BadInput(f"label {path!r} is no path of names, such as 'a{SEPARATOR}b'")
        leaves = sorted(set(every))
        if not leaves:
            raise BadInput("there are no labels")
        parts = {leaf: leaf.split(SEPARATOR) for leaf in leaves}
        depth = len(parts[leaves[0]])
        for leaf, names in parts.items():
            if not all(name.strip() for name in names):
                raise BadInput(f"label {leaf!r} has an empty name in its path")
            if len(names) != depth:
                raise BadInput(f"label {leaf!r} has {len(names)} levels, {leaves[0]!r} has {depth}: give whole paths")
        return cls(tuple(tuple(sorted({SEPARATOR.join(p[: at + 1]) for p in parts.values()})) for at in range(depth)))

    @classmethod
    def from_edges(cls, parent: Iterable[tuple[str, str]]) -> Hierarchy:
        """The tree of pairs (label, its parent). Raises `BadInput` for two parents or a circle."""
        above: dict[str, str] = {}
        for child, name in parent:
            if above.setdefault(child, name) != name:
                raise BadInput(f"label {child!r} has two parents, {above[child]!r} and {name!r}")
        if not above:
            raise BadInput("there are no labels")
        leaves = above.keys() - set(above.values())
        if not leaves:
            raise BadInput("the labels go round in a circle: none is without children")
        reached = [_path(leaf, above) for leaf in sorted(leaves)]
        for child in sorted(above.keys() - {name for path in reached for name in path}):
            raise BadInput(f"label {child!r} is below itself")
        return cls.of(SEPARATOR.join(path) for path in reached)

    @property
    def depth(self) -> int:
        """How many levels."""
        return len(self.levels)

    @cached_property
    def parents(self) -> tuple[Tensor, ...]:
        """Of each level but the first, which label of the level above is the parent ``[C_l]``."""
        out = []
        for above, level in zip(self.levels, self.levels[1:], strict=False):
            place = {name: i for i, name in enumerate(above)}
            out.append(torch.tensor([place[name.rpartition(SEPARATOR)[0]] for name in level]))
        return tuple(out)

    def gold(self, leaves: Tensor) -> list[Tensor]:
        """The label of each level ``[n]`` for leaves ``[n]``, coarse to fine."""
        found = [leaves]
        for parent in reversed(self.parents):
            found.insert(0, parent.to(leaves.device)[found[0]])
        return found

    def leaves(self, labels: Sequence[str]) -> Tensor:
        """Numbers of leaves ``[n]``. Raises `BadInput` for what is none."""
        place = {name: i for i, name in enumerate(self.levels[-1])}
        for label in labels:
            if label not in place:
                raise BadInput(f"label {label!r} is no leaf of the hierarchy: give its whole path")
        return torch.tensor([place[label] for label in labels])


def _path(leaf: str, above: Mapping[str, str]) -> list[str]:
    path = [leaf]
    while path[0] in above:
        path.insert(0, above[path[0]])
        if path.count(path[0]) > 1:
            raise BadInput(f"label {path[0]!r} is below itself")
    return path
