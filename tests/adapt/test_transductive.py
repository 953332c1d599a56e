"""What all transductive heads share: pools, freezing, and states that are whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from handful.adapt import HEADS, head, head_class
from handful.adapt.transductive import Transductive
from handful.errors import BadInput

SMALL: dict[str, dict[str, Any]] = {
    "putm": {"n_outer": 20, "inner_steps": 15, "hidden": 16, "lr": 1e-2},
    "tim-gd": {"n_steps": 20},
}
KEYS = ["pt-map", "bd-cspn", "laplacianshot", "laplacian-clustering", "tim-gd", "tim-adm", "transductive-finetuning"]
KEYS += ["opta", "cipa", "unem", "putm", "easy"]


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positive features, labels, and items without labels."""
    draw = np.random.default_rng(0)
    centre = draw.random((3, 12))
    y = np.repeat(["a", "b", "c"], 3)
    x, pool = (
        np.abs(centre[np.repeat(np.arange(3), n)] + 0.2 * draw.normal(size=(3 * n, 12))).astype(np.float32)
        for n in (3, 8)
    )
    return x, y, pool


def test_all_are_here() -> None:
    assert set(KEYS) <= set(HEADS)
    assert all(issubclass(head_class(key), Transductive) for key in KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_pool_makes_a_model_whose_answers_stand_alone(key: str, data: Any) -> None:
    """What is fitted with a pool is what is frozen after looking at it, and no answer depends on its neighbours."""
    x, y, pool = data
    frozen = head(key, **SMALL.get(key, {})).fit(x, y).frozen(pool)  # type: ignore[attr-defined]
    fitted = head(key, **SMALL.get(key, {}), unlabelled=pool, transductive=False).fit(x, y)
    for name, tensor in fitted.state_.items():
        np.testing.assert_allclose(tensor.numpy(), frozen.state_[name].numpy(), atol=1e-6)
    together = fitted.logits(pool)
    alone = np.concatenate([fitted.logits(pool[[i]]) for i in range(4)])
    np.testing.assert_allclose(alone, together[:4], rtol=1e-4, atol=1e-4)
    plain = head(key, **SMALL.get(key, {}), transductive=False).fit(x, y).logits(pool)
    assert not np.allclose(plain, together)  # the pool did teach something


@pytest.mark.parametrize("key", KEYS)
def test_fit_predict_keeps_what_it_found(key: str, data: Any) -> None:
    x, y, pool = data
    fitted: Any = head(key, **SMALL.get(key, {}))
    found = fitted.fit_predict(x, y, pool)
    assert (found == fitted.transduction_).all()
    assert (found == np.repeat(["a", "b", "c"], 8)).mean() > 0.6
    assert fitted.inductive_.predict(pool[:1]).shape == (1,)
    fitted.check_state()
    with pytest.raises(BadInput, match="features"):
        fitted.frozen(pool[:, :3])
