"""`handful tune`: `handful fit` with the encoder changed a little."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from handful.commands.fit import fit
from handful.ship.model import Model


def tune(sources: Any, labels: Sequence[str] | None = None, *, recipe: str = "auto", **options: Any) -> Model:
    """Learn to label from a few labelled examples, the encoder included.

    Args:
        sources, labels: see `handful.commands.fit.fit`.
        recipe: what is changed and how, as ``handful list recipes`` names it; ``"auto"`` changes something only where
            items left out say that it helps, and in the time there is.
        options: all of `handful.commands.fit.fit` but ``tune``.
    """
    return fit(sources, labels, tune=recipe, **options)


_own = inspect.signature(fit)
# The parameters of `fit`, said once.
tune.__signature__ = _own.replace(  # type: ignore[attr-defined]
    parameters=[
        p.replace(name="recipe", default="auto", annotation="str") if name == "tune" else p
        for name, p in _own.parameters.items()
    ]
)
