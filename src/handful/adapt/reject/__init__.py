"""How little an item is like any of the classes: what an answer "none of these" is given by."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from handful.errors import BadInput, nearest

if TYPE_CHECKING:
    from handful.adapt.reject.base import Rejecter

REJECTERS: Mapping[str, str] = {
    "energy": "handful.adapt.reject.scores:Energy",
    "probability": "handful.adapt.reject.scores:Probability",
    "distance": "handful.adapt.reject.distance:Distance",
    "gpam": "handful.adapt.reject.gaussian:GPAMRejecter",
    "dafos-net": "handful.adapt.reject.outliers:DAFOSRejecter",
}
"""Every rejecter by its kind."""
AUTO = "energy"
"""The kind that ``auto`` stands for: see ``benchmarks/reject.py``."""


def rejecter(kind: str, **params: Any) -> Rejecter:
    """A new rejecter: ``rejecter("energy")``. Raises `BadInput` for an unknown kind or parameter."""
    kind = AUTO if kind == "auto" else kind
    if kind not in REJECTERS:
        raise BadInput(f"unknown way to reject {kind!r}{nearest(kind, ['auto', *REJECTERS])}")
    module, _, name = REJECTERS[kind].partition(":")
    cls: type[Rejecter] = getattr(importlib.import_module(module), name)
    known = cls.__dataclass_fields__
    unknown = [name for name in params if name not in known]
    if unknown:
        raise BadInput(f"rejecter {kind!r} has no parameter {unknown[0]!r}{nearest(unknown[0], known)}")
    return cls(**params)
