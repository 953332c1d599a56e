"""Handful: learn from a handful of labelled examples on top of pre-trained models.

>>> import handful
>>> model = handful.fit({"refund": ["I want my money back", "…"], "login": ["I cannot sign in", "…"]})
>>> model.predict(["where is my refund?"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handful.adapt import head as head
    from handful.commands.advise import advise_context as advise_context
    from handful.commands.advise import advise_encoder as advise_encoder
    from handful.commands.advise import advise_method as advise_method
    from handful.commands.advise import advise_models as advise_models
    from handful.commands.advise import advise_raters as advise_raters
    from handful.commands.audit import audit as audit
    from handful.commands.fit import fit as fit
    from handful.commands.forecast import forecast as forecast
    from handful.commands.grow import grow as grow
    from handful.commands.next import next_ as next_
    from handful.core.task import ClassText as ClassText
    from handful.encode import encoder as encoder
    from handful.read import Dataset as Dataset
    from handful.ship.model import Model as Model
    from handful.ship.model import load as load

__version__ = "0.1.0"

_WHERE = {
    "advise_context": "handful.commands.advise",
    "advise_encoder": "handful.commands.advise",
    "advise_method": "handful.commands.advise",
    "advise_models": "handful.commands.advise",
    "advise_raters": "handful.commands.advise",
    "audit": "handful.commands.audit",
    "fit": "handful.commands.fit",
    "grow": "handful.commands.grow",
    "forecast": "handful.commands.forecast",
    "next_": "handful.commands.next",
    "load": "handful.ship.model",
    "Model": "handful.ship.model",
    "encoder": "handful.encode",
    "head": "handful.adapt",
    "Dataset": "handful.read",
    "ClassText": "handful.core.task",
}
_ROOMS = ("adapt", "commands", "compress", "core", "curate", "encode", "evaluate", "read", "ship", "testing", "tune")
__all__ = [
    "ClassText",
    "Dataset",
    "Model",
    "advise_context",
    "advise_encoder",
    "advise_method",
    "advise_models",
    "advise_raters",
    "audit",
    "encoder",
    "fit",
    "forecast",
    "grow",
    "head",
    "load",
    "next_",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"handful.{name}")
    raise AttributeError(f"module 'handful' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS, "__version__"])
