"""What a head needs before it learns, and whether what it learnt is whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from handful.adapt.parameters import count, finite
from handful.core.task import State
from handful.errors import BadInput

if TYPE_CHECKING:
    from handful.adapt.base import Head


def check_needs(head: Head, counts: np.ndarray, views: Mapping[str, np.ndarray]) -> None:
    """Raise `BadInput` for what a head lacks: side information, or examples of a class, which ``counts [C]``; and for
    parameters of every head that make no sense."""
    name = type(head).__name__
    finite("logit_scale", head.logit_scale, least=0)
    if head.random_state is not None:
        count("random_state", head.random_state)
    if head.needs.text and head.text is None:
        raise BadInput(f"{name} needs class text: give text={{label: vectors}}")
    if head.needs.background and head.background is None:
        raise BadInput(f"{name} needs items of base classes: give background=features, or (features, labels)")
    if head.needs.unlabelled and head.unlabelled is None:
        raise BadInput(f"{name} needs items without labels: give unlabelled=features")
    for view in head.needs.views:
        if view not in views:
            raise BadInput(f"{name} needs features with a view {view!r}")
    if (counts > 0).sum() < 2:
        only = "" if not counts.any() else f" ({head.classes_.tolist()[counts.argmax()]!r})"
        raise BadInput(f"one class only{only}: at least two classes with examples of weight above 0 are needed")
    if counts.min() < head.needs.min_shots:
        few = head.classes_.tolist()[counts.argmin()]
        raise BadInput(f"class {few!r} has {counts.min()} examples; {name} needs {head.needs.min_shots} a class")


def check_shapes(shapes: Mapping[str, str], state: State, sizes: dict[str, int]) -> None:
    """Raise `BadInput` unless a state has the tensors of ``shapes``; ``sizes`` are those of known letters."""
    if odd := sorted(shapes.keys() ^ state.keys()):
        raise BadInput(f"the state has tensors {sorted(state)}, not {sorted(shapes)}: {odd[0]!r} is odd")
    for name, axes in shapes.items():
        shape, letters = tuple(state[name].shape), axes.split()
        if len(shape) != len(letters) or any(sizes.setdefault(a, n) != n for a, n in zip(letters, shape, strict=True)):
            wanted = ", ".join(str(sizes.get(a, a)) for a in letters)
            raise BadInput(f"the state's {name!r} has shape {shape}, not ({wanted})")
