"""Whether the tensors of a state have the names and axes they should."""

from __future__ import annotations

from collections.abc import Mapping

from handful.core.task import State
from handful.errors import BadInput


def check_shapes(shapes: Mapping[str, str], state: State, sizes: dict[str, int]) -> None:
    """Raise `BadInput` unless a state has the tensors of ``shapes``; ``sizes`` are those of known letters."""
    if odd := sorted(shapes.keys() ^ state.keys()):
        raise BadInput(f"the state has tensors {sorted(state)}, not {sorted(shapes)}: {odd[0]!r} is odd")
    for name, axes in shapes.items():
        shape, letters = tuple(state[name].shape), axes.split()
        if len(shape) != len(letters) or any(sizes.setdefault(a, n) != n for a, n in zip(letters, shape, strict=True)):
            wanted = ", ".join(str(sizes.get(a, a)) for a in letters)
            raise BadInput(f"the state's {name!r} has shape {shape}, not ({wanted})")
