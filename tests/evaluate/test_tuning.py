"""Random search with the same budget for every head."""

from __future__ import annotations

import numpy as np
import pytest

from handful.adapt import HEADS, head_class
from handful.adapt.base import Features
from handful.evaluate.sampling import draw
from handful.evaluate.tuning import configurations, tune
from handful.testing.tasks import made_up_task


def test_defaults_come_first_and_draws_are_within_the_ranges_and_seeded() -> None:
    ranges = {"a": (0.01, 100.0), "b": ("x", "y", "z"), "c": (True, False)}
    found = configurations(ranges, {}, 200, seed=3)
    assert found[0] == {} and len(found) == 200
    a = np.array([each["a"] for each in found[1:]])
    assert a.min() >= 0.01 and a.max() <= 100 and 0.35 < (a < 1).mean() < 0.65  # evenly in the logarithm
    assert {each["b"] for each in found[1:]} == {"x", "y", "z"}
    assert found == configurations(ranges, {}, 200, seed=3) != configurations(ranges, {}, 200, seed=4)
    assert all("a" not in each for each in configurations(ranges, {"a": 1.0}, 20, seed=3))
    assert len(configurations({"c": (True, False)}, {}, 20, seed=0)) == 3  # the defaults and both values
    assert configurations({}, {}, 20, seed=0) == [{}]


@pytest.mark.parametrize("key", [key for key in HEADS if head_class(key).ranges])
def test_what_a_head_declares_it_takes(key: str) -> None:
    kind = head_class(key)
    assert kind.ranges.keys() <= set(kind._get_param_names())
    for setting in configurations(kind.ranges, {}, 8, seed=0):
        head = kind(**setting)
        assert np.isfinite(np.asarray(head.logits(made_up_task(head)))).all()


def test_the_best_on_validation_episodes_is_chosen() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(6), 15)
    x = rng.normal(size=(6, 4))[y] + 0.3 * rng.normal(size=(90, 4))
    x *= rng.uniform(0.2, 5, size=(90, 1))  # lengths say nothing: cosine is right
    features = Features(x.astype(np.float32), {})
    drawn = draw(y, ways=3, shots=2, queries=5, episodes=60, seed=0)
    found = tune("prototypes", {"random_state": 0}, {}, features, y, drawn, 2, budget=5)
    assert found.parameters == {"metric": "cosine"} and found.tried == 3
    assert found.accuracy.value > found.defaults.value + 0.05
    held = tune("prototypes", {}, {"metric": "sqeuclidean"}, features, y, drawn, 2, budget=5)
    assert held.parameters == {} and held.tried == 1 and held.accuracy == held.defaults
    ridge = tune("kernel-ridge", {}, {}, features, y, drawn, 1, budget=4)
    assert ridge.tried == 4 and ridge.accuracy.value >= ridge.defaults.value
