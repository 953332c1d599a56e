"""Every rejecter keeps the contract of batched cores, and each is what its source says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sizes import SMALL_REJECTERS
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.reject import AUTO, REJECTERS, rejecter
from handful.adapt.reject.base import Rejecter
from handful.core.task import Task, mask_classes
from handful.errors import BadInput
from handful.testing.tasks import made_up_task, pad, rows, stack

KINDS = tuple(REJECTERS)


@pytest.fixture(params=KINDS)
def one(request: pytest.FixtureRequest) -> Rejecter:
    """Each rejecter."""
    return rejecter(request.param, **SMALL_REJECTERS.get(request.param, {}))


def task_of(seed: int = 0, dtype: torch.dtype = torch.float64) -> Task:
    return made_up_task(head("prototypes"), seed, dtype)


def answer(one: Rejecter, task: Task) -> torch.Tensor:
    """Unknownness of the queries ``[*b, Q]``, logits by prototypes."""
    assert task.query is not None
    logits = mask_classes(head("prototypes").logits(task), task.class_mask)  # type: ignore[arg-type]
    with torch.no_grad():
        return one.unknownness(one.adapt(task), task.query.x, logits)


def test_a_number_a_query(one: Rejecter) -> None:
    found = answer(one, task_of())
    assert found.shape == (5,) and found.isfinite().all() and found.std() > 0


@pytest.mark.parametrize("garbage", [0.0, 1e3, float("nan")])
def test_padding_changes_nothing(one: Rejecter, garbage: float) -> None:
    task = task_of()
    torch.testing.assert_close(answer(one, pad(task, garbage))[:5], answer(one, task))


def test_order_changes_nothing(one: Rejecter) -> None:
    task = task_of()
    order = torch.randperm(len(task.support), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(answer(one, rows(task, order)), answer(one, task))


def test_a_batch_is_what_a_loop_gives(one: Rejecter) -> None:
    tasks = [task_of(seed) for seed in range(3)]
    torch.testing.assert_close(answer(one, stack(tasks)), torch.stack([answer(one, task) for task in tasks]))


def test_single_precision_is_nearly_as_good(one: Rejecter) -> None:
    found = answer(one, task_of(dtype=torch.float32))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), answer(one, task_of()), rtol=1e-3, atol=1e-3)


def test_what_is_saved_answers_the_same_and_what_is_damaged_is_refused(one: Rejecter, blobs: Any) -> None:
    import safetensors.torch

    x, y = blobs(ways=3, shots=4)
    q, logits = Features(2 * x, {}), head("prototypes").fit(x, y).logits(x)
    state = one.fit(Features(x, {}), y)
    again = rejecter(one.kind, **one.parameters())
    kept = safetensors.torch.load(safetensors.torch.save(state)) if state else {}
    again.check_state(kept, 3, x.shape[1])
    assert np.array_equal(again.scores(kept, q, logits), one.scores(state, q, logits))
    for name, tensor in state.items():
        rest = {k: t for k, t in state.items() if k != name}
        for spoilt in (rest, {**rest, name: torch.full_like(tensor, torch.nan)}, {**state, "odd": tensor}):
            with pytest.raises(BadInput) as caught:
                one.check_state(spoilt, 3, x.shape[1])
            assert "\n" not in str(caught.value)
    with pytest.raises(BadInput):
        one.check_state({**state, "odd": torch.zeros(1)}, 3, x.shape[1])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_far_is_less_known(kind: str) -> None:
    one = rejecter(kind)
    rng = np.random.default_rng(0)
    centres = 4 * np.eye(16)
    y, true = np.repeat(np.arange(10), 6), np.repeat(np.arange(15), 20)
    x, q = (centres[part] + 0.8 * rng.normal(size=(len(part), 16)) for part in (y, true))
    fitted = head("gda", normalize=False).fit(x, y)
    logits = fitted.spread(x, y) * fitted.logits(q)
    found = one.scores(one.fit(Features(x, {}), y), Features(q, {}), logits)
    assert roc_auc_score(true >= 10, found) > 0.85


def test_energy_and_probability_are_their_formulas() -> None:
    z = np.random.default_rng(0).normal(size=(7, 4)) * 3
    features = Features(np.zeros((7, 2)), {})
    np.testing.assert_allclose(rejecter("energy").scores({}, features, z), -logsumexp(z, axis=1))
    top = np.exp(z - logsumexp(z, axis=1)[:, None]).max(1)
    np.testing.assert_allclose(rejecter("probability").scores({}, features, z), np.log((1 - top) / top))


def test_a_sure_answer_still_has_digits() -> None:
    z = np.array([[60.0, 0, 0], [61.0, 0, 0]])  # softmax is 1 for both
    found = rejecter("probability").scores({}, Features(np.zeros((2, 2)), {}), z)
    assert found[1] < found[0]


def test_distance_is_the_relative_mahalanobis_distance_of_its_source() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 20_000)
    x = np.array([[3.0, 0, 1], [0, 3, 1], [0, 0, 4]])[y] + 0.5 * rng.normal(size=(60_000, 3)) * [1, 2, 0.7]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    q = rng.normal(size=(40, 3))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    means = np.stack([x[y == k].mean(0) for k in range(3)])
    within = np.cov((x - means[y]).T) * 59_999 / 59_997
    near = np.stack([((q - m) @ np.linalg.inv(within) * (q - m)).sum(1) for m in means], 1).min(1)
    want = near - EmpiricalCovariance().fit(x).mahalanobis(q)
    one = rejecter("distance")
    np.testing.assert_allclose(
        one.scores(one.fit(Features(x, {}), y), Features(q, {}), np.zeros((40, 3))), want, rtol=0.01, atol=0.1
    )


def test_distance_with_one_shot_is_relative_all_the_same(blobs: Any) -> None:
    x, y = blobs(ways=5, shots=1)
    one = rejecter("distance")
    found = one.scores(one.fit(Features(x, {}), y), Features(np.concatenate([x, -x]), {}), np.zeros((10, 5)))
    assert found[:5].max() < found[5:].min()


def test_which_learn_from_negatives(blobs: Any) -> None:
    x, y = blobs(ways=3, shots=6)
    alien = Features(x[:6] + 0.3, {})
    changed = {
        kind: any(
            not torch.equal(a, b)
            for a, b in zip(
                rejecter(kind, **SMALL_REJECTERS.get(kind, {})).fit(Features(x, {}), y).values(),
                rejecter(kind, **SMALL_REJECTERS.get(kind, {})).fit(Features(x, {}), y, alien).values(),
                strict=True,
            )
        )
        for kind in KINDS
    }
    assert changed == {kind: kind in ("gpam", "dafos-net") for kind in KINDS}


def test_names() -> None:
    assert rejecter("auto").kind == AUTO
    assert [rejecter(kind).kind for kind in KINDS] == list(KINDS)
    with pytest.raises(BadInput, match=r"unknown way to reject 'energi'.*energy"):
        rejecter("energi")
    with pytest.raises(BadInput, match="no parameter 'temperature'"):
        rejecter("energy", temperature=1.0)
