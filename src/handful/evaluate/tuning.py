"""Parameters chosen on validation classes: random search, with the same number of tries for every head.

A comparison is fair only if each method was tuned as much as the others, on classes that are not those it is tested on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from handful.adapt import head_class
from handful.adapt.base import Features
from handful.core.intervals import Estimate
from handful.evaluate.episodic import run
from handful.evaluate.indices import Count, Episodes
from handful.protocols import Ranges


@dataclass(frozen=True)
class Tuned:
    """What was chosen for a head at one number of shots.

    Attributes:
        head: its key.
        shots: support items a class.
        tried: how many settings were compared; 1 for a head that declares no `handful.adapt.base.Head.ranges`.
        parameters: of the best, as far as they differ from what was given; empty for the defaults.
        accuracy: of the best on the validation episodes, and of the defaults.
        defaults: the latter.
    """

    head: str
    shots: Count
    tried: int
    parameters: Mapping[str, Any]
    accuracy: Estimate
    defaults: Estimate

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "head": self.head,
            "shots": self.shots,
            "tried": self.tried,
            "parameters": dict(self.parameters),
            "accuracy": self.accuracy.as_dict(),
            "defaults": self.defaults.as_dict(),
        }


def configurations(ranges: Ranges, fixed: Mapping[str, Any], budget: int, seed: int) -> list[dict[str, Any]]:
    """At most ``budget`` different settings: the defaults first, then random ones.

    Args:
        ranges: see `handful.protocols.Ranges`.
        fixed: parameters that are given and not searched.
        budget: how many.
        seed: of the draw.
    """
    free = {name: values for name, values in ranges.items() if name not in fixed}
    rng, found = np.random.default_rng(seed), {"{}": dict[str, Any]()}
    for _ in range(20 * budget if free else 0):  # few values may have fewer combinations than there are tries
        if len(found) == budget:
            break
        drawn = {name: _draw(values, rng) for name, values in free.items()}
        found.setdefault(json.dumps(drawn), drawn)
    return list(found.values())


def _draw(values: tuple[Any, ...], rng: np.random.Generator) -> Any:
    if len(values) == 2 and all(isinstance(end, float) for end in values):
        return float(f"{math.exp(rng.uniform(math.log(values[0]), math.log(values[1]))):.3g}")
    return values[int(rng.integers(len(values)))]


def tune(
    key: str,
    given: Mapping[str, Any],
    fixed: Mapping[str, Any],
    features: Features,
    labels: np.ndarray,
    drawn: Episodes,
    shots: Count,
    *,
    budget: int,
    base: Any = None,
    seed: int = 0,
) -> Tuned:
    """The best of ``budget`` settings on validation episodes, by mean accuracy; the first of those that tie.

    Args:
        key: of the head.
        given: what it is told beside the examples: class text, seed.
        fixed: parameters that are not searched.
        features, labels: of the validation classes.
        drawn: episodes of these, the same for every setting and head.
        shots: support items a class.
        budget: how many settings.
        base, seed: as in `handful.evaluate.episodic.run`.
    """
    kind = head_class(key)
    tries = configurations(kind.ranges, fixed, budget, seed)
    part = drawn if shots == "any" else drawn.with_shots(int(shots))
    found = [
        run(kind(**{**given, **fixed, **setting}), features, labels, part, base=base, seed=seed).mean
        for setting in tries
    ]
    best = max(range(len(tries)), key=lambda i: found[i].value)
    return Tuned(key, shots, len(tries), tries[best], found[best], found[0])
