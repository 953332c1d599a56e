"""Heads that look at places of an image get them from an encoder that shows places, at learning and ever after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import handful
from handful.commands.bench import bench
from handful.errors import BadInput
from handful.evaluate.episodic import make_pool
from handful.read import from_arrays
from handful.ship.model import Model


def squares(count: int, seed: int) -> tuple[list[np.ndarray], list[str]]:
    """Noise with a bright square, red or blue, somewhere ``[48, 48, 3]``."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for i in range(count):
        image = rng.integers(0, 60, (48, 48, 3), dtype=np.uint8)
        top, left = rng.integers(0, 24, 2)
        image[top : top + 24, left : left + 24, (0, 2)[i % 2]] = 255
        images.append(image)
        labels.append(("red", "blue")[i % 2])
    return images, labels


def test_a_head_of_places_is_fitted_saved_and_asked(tmp_path: Path) -> None:
    saved = tmp_path / "m.handful"
    model = handful.fit(*squares(8, 0), head="fafd-ldwr", out=saved)
    assert model.head.state_["local"].shape == (8, 49, 1280)
    images, labels = squares(8, 1)
    loaded = Model.load(saved)
    assert loaded.predict(images) == labels
    assert np.allclose(loaded.predict_proba(images), model.predict_proba(images))
    assert model.evaluate(images, labels).accuracy.value == 1


def test_it_is_tested_on_places_too(tmp_path: Path) -> None:
    card = handful.fit(*squares(8, 0), head="fafd-ldwr", test=squares(6, 2)).card
    assert card["test"]["assessment"]["accuracy"]["value"] == 1


def test_bench_gives_places_to_the_head_that_needs_them() -> None:
    found = bench(
        from_arrays(*squares(16, 3)), heads=["prototypes", "fafd-ldwr"], ways=2, shots=[2], queries=4, episodes=3
    )
    assert [row.head for row in found.rows] == ["prototypes", "fafd-ldwr"]


def test_other_heads_do_not_carry_places() -> None:
    data = handful.adapt.base.Features(np.ones((4, 3)), {"local": np.ones((4, 9, 5)), "aligned": np.ones((4, 2))})
    assert set(make_pool(handful.head("prototypes"), data, list("aabb")).views) == {"aligned"}
    assert set(make_pool(handful.head("fafd-ldwr"), data, list("aabb")).views) == {"local", "aligned"}


def test_an_encoder_without_places_is_refused_in_one_line() -> None:
    with pytest.raises(BadInput, match="needs features with a view 'local'"):
        handful.fit({"a": ["one text", "two texts"], "b": ["three", "four"]}, head="fafd-ldwr")
