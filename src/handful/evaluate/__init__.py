"""Can I trust it? Metrics with intervals, out-of-fold answers, episodes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handful.evaluate.assessment import Assessment as Assessment
    from handful.evaluate.crossfit import CrossFit as CrossFit
    from handful.evaluate.crossfit import cross_fit as cross_fit
    from handful.evaluate.episodic import EpisodeResult as EpisodeResult
    from handful.evaluate.episodic import episodes as episodes
    from handful.evaluate.indices import Episodes as Episodes
    from handful.evaluate.metrics import assess as assess

_WHERE = {
    "Assessment": "assessment",
    "assess": "metrics",
    "CrossFit": "crossfit",
    "cross_fit": "crossfit",
    "EpisodeResult": "episodic",
    "episodes": "episodic",
    "Episodes": "indices",
}
__all__ = ["Assessment", "CrossFit", "EpisodeResult", "Episodes", "assess", "cross_fit", "episodes"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"handful.evaluate.{_WHERE[name]}"), name)
