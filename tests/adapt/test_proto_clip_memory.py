"""Proto-CLIP from published memories, on data of another distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from handful.adapt import head
from handful.adapt.proto_clip_memory import from_memory, out_of_distribution
from handful.errors import BadInput

PART = "out-of-distribution"
SHAPES = {
    "fc": {"fc.0.weight": (2, 8), "fc.1.weight": (2,), "fc.1.bias": (2,), "fc.2.weight": (8, 2), "fc.3.weight": (8,),
           "fc.3.bias": (8,)},
    "conv": {"conv1.weight": (16, 1, 1, 1), "bn1.weight": (16, 3, 3), "bn1.bias": (16, 3, 3),
             "conv2.weight": (16, 16, 3, 3), "bn2.weight": (16, 3, 3), "bn2.bias": (16, 3, 3),
             "conv3.weight": (1, 16, 1, 1), "bn3.weight": (1, 3, 3), "bn3.bias": (1, 3, 3)},
}  # fmt: skip


def memory(kind: str) -> dict[str, Any]:
    draw, weights = np.random.default_rng(0), np.random.default_rng(1)
    shapes = SHAPES["fc" if kind == "fc" else "conv"]
    return {
        "visual": draw.normal(size=(15, 8)),
        "text": draw.normal(size=(5, 8)),
        "adapter": {name: 0.4 * weights.normal(size=size) for name, size in shapes.items()},
        "kind": kind,
        "alpha": 0.3,
        "beta": 4.0,
    }


def queries() -> np.ndarray:
    draw = np.random.default_rng(0)
    draw.normal(size=(20, 8))
    q = draw.normal(size=(7, 8))
    return q / np.linalg.norm(q, axis=1, keepdims=True)


@pytest.mark.paper(60, oracle="c", part=PART)
@pytest.mark.paper(60, oracle="e", part=PART)
@pytest.mark.parametrize("kind", ["fc", "conv-2x", "conv-3x"])
def test_equals_the_authors_toolkit(golden: Any, kind: str) -> None:
    inputs, expected = golden("proto_clip_ood")
    made = from_memory(**memory(kind))
    np.testing.assert_allclose(made.predict_proba(queries()), expected[kind]["p"], atol=1e-5)
    found = out_of_distribution(made, {"sketch": (queries(), inputs["labels"]), "again": (queries()[:1], [0])})
    assert found["sketch"] == pytest.approx(expected[kind]["accuracy"] / 100)
    assert found.keys() == {"sketch", "again"}


@pytest.mark.paper(60, oracle="a", part=PART)
def test_its_ends_are_the_nearest_text_and_the_nearest_centroid() -> None:
    given = memory("fc") | {"adapter": {name: 0 * v for name, v in memory("fc")["adapter"].items()}}  # 0.8 x
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    by_text, by_image = (from_memory(**given | {"alpha": alpha}).predict(queries()) for alpha in (0.0, 1.0))
    assert np.array_equal(by_text, (queries() @ unit(given["text"]).T).argmax(1))
    centroid = unit(unit(given["visual"]).reshape(5, 3, 8).mean(1))
    assert np.array_equal(by_image, (queries() @ centroid.T).argmax(1))


def test_labels_in_any_order_and_after_saving() -> None:
    plain = from_memory(**memory("fc"))
    named = from_memory(**memory("fc"), classes=["e", "d", "c", "b", "a"])
    assert named.classes_.tolist() == ["a", "b", "c", "d", "e"]
    assert np.array_equal(named.predict(queries()), np.array(["e", "d", "c", "b", "a"])[plain.predict(queries())])
    again = type(named).restore(named.parameters(), named.classes_, named.state_, named.n_features_in_)
    again.check_state()
    np.testing.assert_array_equal(again.logits(queries()), named.logits(queries()))


def test_the_helper_takes_any_head(blobs: Any) -> None:
    x, y = blobs(noise=0.3)
    new, truth = blobs(noise=0.3, seed=0, shots=9)
    found = out_of_distribution(head("gda").fit(x, y), {"near": (new, truth), "far": (-new, truth)})
    assert found["near"] > 0.9 > 0.5 > found["far"]
    with pytest.raises(BadInput, match="far: label 7 is none of the classes"):
        out_of_distribution(head("gda").fit(x, y), {"far": (new[:1], [7])})
    with pytest.raises(BadInput, match="near: 36 rows of features but 2 labels"):
        out_of_distribution(head("gda").fit(x, y), {"near": (new, [0, 1])})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "mlp"}, "kind is one of"),
        ({"alpha": 1.5}, "alpha must be"),
        ({"visual": np.ones((14, 8))}, r"a visual memory \(14, 8\) is no"),
        ({"visual": np.zeros((15, 8))}, "visual memory must be a table of finite rows that are not zero"),
        ({"text": np.full((5, 8), np.nan)}, "text memory must be"),
        ({"classes": ["a"] * 5}, "classes must be 5 different labels"),
        ({"adapter": {}}, "an adapter of kind 'fc' has a tensor 'fc.0.weight'"),
        ({"kind": "conv-2x"}, "has a tensor 'conv1.weight'"),
    ],
    ids=str,
)
def test_memories_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        from_memory(**memory("fc") | change)


def test_an_adapter_of_another_width_or_without_numbers_is_refused() -> None:
    given = memory("fc")
    given["adapter"]["fc.3.bias"][2] = np.nan
    with pytest.raises(BadInput, match=r"'fc.3.bias' has numbers that are not finite"):
        from_memory(**given)
    given["adapter"]["fc.2.weight"] = np.ones((8, 3))
    with pytest.raises(BadInput, match=r"'fc.2.weight' has shape \(8, 3\), not \(8, 2\)"):
        from_memory(**given)
