"""`handful tune`: the options of `handful fit`, with a recipe."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from typer import Option

from handful.cli.fit import fit

Recipe = Annotated[
    str,
    Option(
        metavar="KEY",
        help="What is changed, as `handful list recipes` names it; `auto` changes something only where it helps.",
    ),
]


def tune(**typed: Any) -> None:
    """Learn from labelled examples, and change the encoder a little where that helps.

    What `handful fit` does, all of its options included, with an encoder that has learnt from the labels too.
    """
    fit(**{("tune" if name == "recipe" else name): value for name, value in typed.items()})


_own = inspect.signature(fit, eval_str=True)
_parameters = [
    p.replace(name="recipe", default="auto", annotation=Recipe) if name == "tune" else p
    for name, p in _own.parameters.items()
]
# The options of `fit`, said once: what the parser reads.
tune.__signature__ = _own.replace(parameters=_parameters)  # type: ignore[attr-defined]
tune.__annotations__ = {p.name: p.annotation for p in _parameters}
