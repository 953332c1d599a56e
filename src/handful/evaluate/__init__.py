"""Can I trust it? Metrics with intervals, out-of-fold answers, episodes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handful.evaluate.assessment import Assessment as Assessment
    from handful.evaluate.concept_index import ConceptIndex as ConceptIndex
    from handful.evaluate.concepts import log_linear_trend as log_linear_trend
    from handful.evaluate.concepts import long_tail as long_tail
    from handful.evaluate.crossfit import CrossFit as CrossFit
    from handful.evaluate.crossfit import cross_fit as cross_fit
    from handful.evaluate.episodic import EpisodeResult as EpisodeResult
    from handful.evaluate.episodic import episodes as episodes
    from handful.evaluate.indices import Episodes as Episodes
    from handful.evaluate.metrics import assess as assess
    from handful.evaluate.rasch import Forecast as Forecast
    from handful.evaluate.rasch import fit_rasch as fit_rasch
    from handful.evaluate.rasch import forecast_scores as forecast_scores
    from handful.evaluate.retest import Judged as Judged
    from handful.evaluate.retest import Sample as Sample
    from handful.evaluate.retest import resample_test_set as resample_test_set
    from handful.evaluate.select_from_words import rank_models as rank_models
    from handful.evaluate.select_from_words import score_table as score_table
    from handful.evaluate.shift import ShiftFit as ShiftFit
    from handful.evaluate.shift import robustness_fit as robustness_fit

_WHERE = {
    "Assessment": "assessment",
    "assess": "metrics",
    "CrossFit": "crossfit",
    "cross_fit": "crossfit",
    "EpisodeResult": "episodic",
    "episodes": "episodic",
    "Episodes": "indices",
    "robustness_fit": "shift",
    "ShiftFit": "shift",
    "resample_test_set": "retest",
    "Sample": "retest",
    "Judged": "retest",
    "forecast_scores": "rasch",
    "Forecast": "rasch",
    "fit_rasch": "rasch",
    "score_table": "select_from_words",
    "rank_models": "select_from_words",
    "log_linear_trend": "concepts",
    "long_tail": "concepts",
    "ConceptIndex": "concept_index",
}
__all__ = [
    "Assessment",
    "ConceptIndex",
    "CrossFit",
    "EpisodeResult",
    "Episodes",
    "Forecast",
    "Judged",
    "Sample",
    "ShiftFit",
    "assess",
    "cross_fit",
    "episodes",
    "fit_rasch",
    "forecast_scores",
    "log_linear_trend",
    "long_tail",
    "rank_models",
    "resample_test_set",
    "robustness_fit",
    "score_table",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"handful.evaluate.{_WHERE[name]}"), name)
