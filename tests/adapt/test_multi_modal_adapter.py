"""The Multi-Modal Adapter against the authors' numbers and against the attention it is written out from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.multi_modal_adapter import CrossAttention
from handful.adapt.packed import unpack
from handful.core.distances import unit
from handful.errors import BadInput

SMALL = {"inner": 16, "epochs": 3}


@pytest.fixture
def case(blobs: Any) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    x, y = blobs(noise=2.0)
    return x, y, dict(enumerate(np.random.default_rng(0).normal(size=(4, 10))))


@pytest.mark.paper(79, oracle="a")
@pytest.mark.parametrize("mask", ["block", "bias"])
def test_without_shares_it_is_zero_shot(case: Any, mask: str) -> None:
    x, y, text = case
    fitted = head("multi-modal-adapter", text=text, image_ratio=0.0, text_ratio=0.0, mask=mask, **SMALL).fit(x, y)
    np.testing.assert_allclose(fitted.logits(x), head("zero-shot", text=text).fit(x, y).logits(x), atol=1e-9)


@pytest.mark.paper(79, oracle="b")
@pytest.mark.parametrize("mask", ["block", "bias"])
def test_the_order_of_classes_does_not_count(case: Any, mask: str) -> None:
    x, y, text = case
    order = np.array([2, 0, 3, 1])
    made = {"mask": mask, **SMALL}
    plain = head("multi-modal-adapter", text=text, **made).fit(x, y).logits(x)
    renamed = head("multi-modal-adapter", text={int(order[c]): v for c, v in text.items()}, **made).fit(x, order[y])
    np.testing.assert_allclose(np.asarray(renamed.logits(x))[:, order], plain, atol=1e-5)


@pytest.mark.paper(79, oracle="c")
@pytest.mark.parametrize("mask", ["block", "bias"])
def test_images_do_not_sway_each_other(case: Any, mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, text = case
    fitted = head("multi-modal-adapter", text=text, mask=mask, **SMALL).fit(x, y)
    together = fitted.logits(x)
    np.testing.assert_allclose(fitted.logits(x[[7]]), together[[7]], atol=1e-9)
    monkeypatch.setattr("handful.adapt.multi_modal_adapter.BLOCK", 300)
    np.testing.assert_allclose(fitted.logits(x), together, atol=1e-9)


@pytest.mark.paper(79, oracle="d")
def test_equals_the_authors_code(golden: Any) -> None:
    inputs, expected = golden("multi_modal_adapter")
    module = CrossAttention(8, 16, 4, "bias")
    n = sum(math.prod(size) for size in module.sizes)
    weights = torch.as_tensor(0.3 * np.random.default_rng(7).normal(size=n))
    z, text = (torch.as_tensor(np.asarray(inputs[name])) for name in ("query", "text"))
    logits = 100 * module.logits(weights, z, text, torch.ones(4, dtype=torch.bool), (0.2, 0.2))
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-6)


@pytest.mark.paper(79, oracle="e")
def test_blocked_attention_only_crosses() -> None:
    """Against `torch.nn.MultiheadAttention` with everything within a modality forbidden."""
    module = CrossAttention(8, 16, 4, "block")
    weights, draw = module.start(0) * 3, torch.Generator().manual_seed(0)
    z, text = (unit(torch.randn(n, 8, generator=draw, dtype=torch.float64)) for n in (5, 4))
    down1, c1, down2, c2, qkv, c3, out, c4, up, c5, last, bias = unpack(weights, module.sizes)
    attention = torch.nn.MultiheadAttention(16, 4, dtype=torch.float64)
    with torch.no_grad():
        for parameter, value in zip(attention.parameters(), (qkv, c3, out, c4), strict=True):
            parameter.copy_(value)
        rows = torch.cat([text[:, None].expand(-1, 5, -1), z[None]]) @ down1.mT + c1
        rows = rows @ down2.mT + c2
        inside = torch.zeros(5, 5, dtype=torch.bool)
        inside[:4, :4] = inside[4, 4] = True
        seen, share = attention(rows, rows, rows, attn_mask=inside)
        a = unit(torch.nn.functional.gelu(seen @ up.mT + c5) @ last.mT + bias)
    assert share[:, 4, 4].abs().max() == 0
    images, texts = unit(0.2 * a[4] + 0.8 * z), unit(0.2 * a[:4] + 0.8 * text[:, None])
    want = torch.einsum("nd,cnd->nc", images, texts)
    got = module.logits(weights, z, text, torch.ones(4, dtype=torch.bool), (0.2, 0.2))
    torch.testing.assert_close(got, want)


@pytest.fixture
def wider(case: Any) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """With text of three classes that have no examples."""
    x, y, text = case
    return x, y, text | dict(enumerate(np.random.default_rng(1).normal(size=(3, 10)), start=4))


@pytest.mark.paper(79, oracle="a", part="base-to-new")
@pytest.mark.parametrize("mask", ["block", "bias"])
def test_without_shares_it_is_zero_shot_for_new_classes(wider: Any, mask: str) -> None:
    x, y, text = wider
    made = head("multi-modal-adapter", text=text, image_ratio=0.0, text_ratio=0.0, mask=mask, **SMALL).fit(x, y)
    want = head("zero-shot", text=text).fit(x, y).logits(x, [4, 6, 1])
    np.testing.assert_allclose(made.logits(x, [4, 6, 1]), want, atol=1e-9)


@pytest.mark.paper(79, oracle="b", part="base-to-new")
@pytest.mark.parametrize("mask", ["block", "bias"])
def test_the_order_of_new_classes_does_not_count_and_their_number_does(wider: Any, mask: str) -> None:
    x, y, text = wider
    made = head("multi-modal-adapter", text=text, mask=mask, **SMALL).fit(x, y)
    plain = np.asarray(made.logits(x, [4, 5, 6]))
    np.testing.assert_allclose(np.asarray(made.logits(x, [6, 4, 5]))[:, [1, 2, 0]], plain, atol=1e-5)
    assert np.abs(np.asarray(made.logits(x, [4, 5, 6, 0]))[:, :3] - plain).max() > 1e-3  # the image looks at all asked


@pytest.mark.paper(79, oracle="d", part="base-to-new")
def test_new_classes_equal_the_authors_code(golden: Any, case: Any) -> None:
    inputs, expected = golden("multi_modal_adapter")
    q, new = np.asarray(inputs["query"]), np.asarray(inputs["text"])
    x, y, _ = case
    text = dict(enumerate(np.concatenate([x[[0, 6, 12, 18], :8], new])))
    made = head("multi-modal-adapter", text=text, inner=16, mask="bias", epochs=0).fit(x[:, :8], y)
    weights = 0.3 * np.random.default_rng(7).normal(size=made.state_["module"].shape)
    made.state_ = {**made.state_, "module": torch.as_tensor(weights)}
    np.testing.assert_allclose(made.logits(q, [4, 5, 6, 7]), expected["logits"], atol=1e-6)


def test_what_base_classes_teach_helps_new_ones() -> None:
    """Images are off their text by one shift, which any class can teach."""
    draw = np.random.default_rng(0)
    text, shift = unit(torch.as_tensor(draw.normal(size=(40, 8)))).numpy(), 1.5 * draw.normal(size=8)
    y = np.repeat(np.arange(40), 8)
    x = text[y] + shift / 2 + 0.1 * draw.normal(size=(320, 8))
    base, new = y < 30, list(range(30, 40))
    given = {"text": dict(enumerate(text)), "logit_scale": 20.0}
    made = head("multi-modal-adapter", image_ratio=0.5, epochs=40, inner=16, **given).fit(x[base], y[base])
    zero = head("zero-shot", **given).fit(x[base], y[base])
    right = [float((h.predict(x[~base], new) == y[~base]).mean()) for h in (made, zero)]
    assert right[0] > right[1] + 0.05, right


def test_training_lowers_the_loss(case: Any) -> None:
    x, y, text = case

    def loss(epochs: int) -> float:
        made = head("multi-modal-adapter", text=text, epochs=epochs, inner=16, logit_scale=10.0, image_ratio=0.5)
        return float(-np.log(made.fit(x, y).predict_proba(x)[np.arange(len(y)), y]).mean())

    assert loss(60) < loss(10) < loss(0)


def test_padded_classes_are_not_attended_to(case: Any) -> None:
    from handful.testing import made_up_task

    made = head("multi-modal-adapter", mask="bias", **SMALL)
    task = made_up_task(made)
    fewer = replace(task, class_mask=torch.tensor([True, True, False]), weight=task.weight * (task.labels[:, 2] == 0))
    other = replace(
        fewer,
        text=replace(
            fewer.text,
            vectors=fewer.text.vectors.flip(-1) * torch.tensor([0, 0, 1])[:, None, None]
            + fewer.text.vectors * torch.tensor([1, 1, 0])[:, None, None],
        ),
    )
    torch.testing.assert_close(made.logits(other)[:, :2], made.logits(fewer)[:, :2])


@pytest.mark.parametrize(
    "bad",
    [
        {"image_ratio": 1.5},
        {"text_ratio": -0.1},
        {"mask": "float"},
        {"heads": 0},
        {"inner": 15},
        {"epochs": -1},
        {"lr": 0.0},
        {"batch_size": 0},
    ],
    ids=str,
)
def test_parameters_that_make_no_sense_are_refused(case: Any, bad: dict[str, Any]) -> None:
    x, y, text = case
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        head("multi-modal-adapter", text=text, **bad).fit(x, y)
