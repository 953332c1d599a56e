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
        raise BadInput(f"{name} needs class text: give text={{label: vectors}} (on the command line: --class-names)")
    if head.needs.background and head.background is None:
        raise BadInput(f"{name} needs items of base classes: give background=features, or (features, labels)")
    if head.needs.unlabelled and head.unlabelled is None:
        raise BadInput(f"{name} needs items without labels: give unlabelled=features")
    check_views(head, views)
    if (counts > 0).sum() < 2:
        only = "" if not counts.any() else f" ({head.classes_.tolist()[counts.argmax()]!r})"
        raise BadInput(f"one class only{only}: at least two classes with examples of weight above 0 are needed")
    if counts.min() < head.needs.min_shots:
        few = head.classes_.tolist()[counts.argmin()]
        raise BadInput(f"class {few!r} has {counts.min()} examples; {name} needs {head.needs.min_shots} a class")


def check_views(head: Head, views: Mapping[str, np.ndarray]) -> None:
    """Raise `BadInput` where a view that the head needs is missing."""
    for view in head.needs.views:
        if view not in views:
            raise BadInput(f"{type(head).__name__} needs features with a view {view!r}")


def check_finite(head: Head, state: State) -> None:
    """Raise `BadInput` where something that was learnt is no number: steps too long, or features too large."""
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise BadInput(
                f"{type(head).__name__} learnt numbers that are not finite ({name!r}): take a smaller rate where it "
                "has one, or features nearer to 1"
            )


def check_widths(head: Head, views: Mapping[str, np.ndarray]) -> None:
    """Raise `BadInput` for a view that is not as wide as the fitted head has learnt it."""
    for name, width in head.view_widths().items():
        if name in views and views[name].shape[-1] != width:
            raise BadInput(f"view {name!r} has width {views[name].shape[-1]}, but {type(head).__name__} knows {width}")


def check_shapes(shapes: Mapping[str, str], state: State, sizes: dict[str, int]) -> None:
    """Raise `BadInput` unless a state has the tensors of ``shapes``; ``sizes`` are those of known letters."""
    if odd := sorted(shapes.keys() ^ state.keys()):
        raise BadInput(f"the state has tensors {sorted(state)}, not {sorted(shapes)}: {odd[0]!r} is odd")
    for name, axes in shapes.items():
        shape, letters = tuple(state[name].shape), axes.split()
        if len(shape) != len(letters) or any(sizes.setdefault(a, n) != n for a, n in zip(letters, shape, strict=True)):
            wanted = ", ".join(str(sizes.get(a, a)) for a in letters)
            raise BadInput(f"the state's {name!r} has shape {shape}, not ({wanted})")
