"""Classes that come later: what is refused of their examples."""

from __future__ import annotations

from collections.abc import Sequence

from handful.errors import BadInput
from handful.tune.class_texts import refuse_empty
from handful.tune.recipe import Data


def refuse_later(seen: Sequence[str], data: Data) -> None:
    """Raise `BadInput` where there are no base classes yet, or a class of ``data`` was seen or has no example."""
    if not seen:
        raise BadInput("there are no base classes to add to: call fit_base first")
    known = sorted(set(seen) & set(data.classes))
    if known:
        raise BadInput(f"class {known[0]!r} is known already: give examples of new classes only")
    refuse_empty(data)
