"""LaSO: label sets, the operations before and after training, and what made-up rows do for few examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from handful.adapt import head
from handful.adapt.laso_sets import ANALYTIC, LabelSetAugmenter, LaSO, label_set, subtract, union
from handful.adapt.laso_train import LaSOTrainer, balanced_pairs, set_loss
from handful.errors import BadInput
from handful.evaluate.label_sets import assess_label_sets, label_set_retrieval_iou

Golden = Callable[[str], tuple[Any, Any]]
RENAMED = {
    "net_ab.0": "mix",
    "net_ab.1": "mix_norm",
    "fc_out": "out",
    **{f"res_layer{i}.{old}": f"{new}.{i}" for i in range(2) for old, new in (("fc", "layers"), ("bn", "norms"))},
    **{f"res_layer{i}.gate": f"gates.{i}" for i in range(2)},
}


def label_rows(n: int, labels: int, seed: int = 0, share: float = 0.4) -> np.ndarray:
    """Random label sets ``[n, labels]``, none of them empty."""
    draw = np.random.default_rng(seed)
    y = (draw.random((n, labels)) < share).astype(int)
    y[np.arange(n), draw.integers(labels, size=n)] = 1
    return y


def blocks(y: np.ndarray, noise: float, seed: int = 0, width: int = 4) -> np.ndarray:
    """Features with a block of ``width`` channels a label, 1 where an item has it; noisy, and not negative."""
    x = np.repeat(y, width, axis=1) + noise * np.random.default_rng(seed).normal(size=(len(y), width * y.shape[1]))
    clipped: np.ndarray = np.maximum(x, 0)
    return clipped


@pytest.mark.paper(159, oracle="a")
def test_label_sets() -> None:
    a, b = torch.as_tensor(label_rows(50, 6)), torch.as_tensor(label_rows(50, 6, seed=1))
    u, i, s = (label_set(name, a, b) for name in ("union", "intersect", "subtract"))
    assert torch.equal(u, a.bool().logical_or(b.bool()).long())
    assert torch.equal(i, a.bool().logical_and(b.bool()).long())
    assert torch.equal(s, a * (1 - b))
    assert torch.equal(label_set("subtract", s, b), s)
    assert torch.equal(label_set("subtract", a, i), s)
    assert torch.equal(label_set("union", s, i), a)


@pytest.mark.paper(159, oracle="b")
def test_the_analytic_operations_are_exact_on_blocks() -> None:
    y_a, y_b = label_rows(40, 5), label_rows(40, 5, seed=1)
    a, b = (torch.as_tensor(blocks(y, 0.0)) for y in (y_a, y_b))
    for name in ("subtract", "intersect"):
        want = label_set(name, torch.as_tensor(y_a), torch.as_tensor(y_b)).numpy()
        np.testing.assert_array_equal(ANALYTIC[name](a, b).numpy(), blocks(want, 0.0))
    np.testing.assert_array_equal((union(a, b) > 0.5).numpy(), blocks(y_a | y_b, 0.0) > 0)
    assert float(subtract(a, a).abs().max()) == 0


def test_training_lowers_the_loss_and_repeats() -> None:
    y = label_rows(60, 4)
    x = torch.as_tensor(blocks(y, 0.1))
    target, part = torch.as_tensor(y, dtype=x.dtype), (slice(0, 30), slice(30, 60))
    judge = head("multi-label-logistic").fit(x.numpy(), y).state_

    def loss(networks: LaSO) -> float:
        (a, b), (y_a, y_b) = ([rows[s] for s in part] for rows in (x, target))
        return float(set_loss(networks(a, b), a, b, y_a, y_b, judge["weight"], judge["bias"]).detach())

    trained = [LaSOTrainer(epochs=k, warmup=1, lr=(0.005, 0.02)).fit(x.numpy(), y) for k in (1, 4, 4)]
    assert loss(trained[1]) < 0.8 * loss(trained[0])
    assert loss(trained[1]) == loss(trained[2])


def test_trained_operations_take_away_what_is_fainter_in_the_other_item() -> None:
    """Items of uneven strength: ``relu(a - b)`` leaves half of a strong a; networks learn that the label goes."""
    draw = np.random.default_rng(4)

    def items(seed: int) -> tuple[np.ndarray, np.ndarray]:
        y = label_rows(300, 5, seed=seed)
        return blocks(y, 0.2, seed=seed) * np.exp(0.6 * draw.normal(size=(300, 1))), y

    (x, y), (q, truth) = items(0), items(1)
    networks = LaSOTrainer(epochs=8, lr=(1e-3, 2e-2), warmup=1, batch_size=32).fit(x.astype(np.float32), y)
    judge, i, j = head("multi-label-logistic").fit(x, y), draw.integers(300, size=500), draw.integers(300, size=500)
    found = {}
    for name, analytic in ANALYTIC.items():
        a, b = torch.as_tensor(q[i], dtype=torch.float32), torch.as_tensor(q[j], dtype=torch.float32)
        want = label_set(name, torch.as_tensor(truth[i]), torch.as_tensor(truth[j])).numpy()
        for by, made in (("learnt", networks.apply_to(name, a, b).detach()), ("analytic", analytic(a, b))):
            found[name, by] = average_precision_score(want, judge.logits(made.numpy()))
    assert min(found[name, "learnt"] for name in ANALYTIC) > 0.9
    assert found["subtract", "learnt"] > found["subtract", "analytic"] + 0.05


@pytest.mark.paper(159, oracle="d")
def test_outputs_of_the_authors_networks(golden: Golden) -> None:
    for given, want in zip(*golden("laso"), strict=True):
        networks = LaSO(3, given["layers"], gated=given["gated"]).double().eval()
        state = {}
        for name, value in given["weights"].items():
            operation, _, rest = name.partition("_op.")
            layer, _, kind = rest.rpartition(".")
            state[f"{operation}.{RENAMED[layer]}.{kind}"] = torch.tensor(value, dtype=torch.float64)
        missing, odd = networks.load_state_dict(state, strict=False)
        assert not odd and all(name.endswith("num_batches_tracked") for name in missing)
        got = networks(*(torch.tensor(given[side], dtype=torch.float64) for side in "ab"))
        assert got.keys() == want.keys()
        for name, rows in want.items():
            np.testing.assert_allclose(got[name].detach().numpy(), rows, atol=1e-5, err_msg=name)


@pytest.mark.paper(159, oracle="e")
def test_average_precision_is_scikit_learns_and_intervals_hold_it() -> None:
    draw = np.random.default_rng(0)
    y = label_rows(60, 5)
    scores = y + draw.normal(size=y.shape)
    found = assess_label_sets(y, scores, scores > 0.5, replicates=50).mean_average_precision
    one_by_one = []
    for truth, s in zip(y.T, scores.T, strict=True):
        hits = truth[np.argsort(-s)]
        one_by_one.append((np.cumsum(hits) / np.arange(1, 61))[hits == 1].mean())
    assert found.value == pytest.approx(np.mean(one_by_one))
    assert found.value == pytest.approx(average_precision_score(y, scores))
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.3


def test_what_is_made_of_noiseless_blocks_costs_only_what_the_classifier_does() -> None:
    y_a, y_b = (torch.as_tensor(label_rows(20, 3, seed=k), dtype=torch.float64) for k in (0, 1))
    a, b = (torch.as_tensor(blocks(y.numpy().astype(int), 0.0)) for y in (y_a, y_b))
    exact = LaSO(12).double()
    for name, one in (("subtract", subtract), ("intersect", torch.minimum), ("union", torch.maximum)):
        setattr(exact, name, _Exactly(one))
    outputs = exact(a, b)
    weight, bias = (
        torch.eye(3, dtype=torch.float64).repeat_interleave(4, 1) * 10,
        torch.full((3,), -20.0, dtype=torch.float64),
    )
    assert float(set_loss(outputs, a, b, y_a, y_b, weight, bias)) < 1e-6
    outputs["S(a,b)"], outputs["S(b,a)"] = outputs["S(b,a)"], outputs["S(a,b)"]
    assert float(set_loss(outputs, a, b, y_a, y_b, weight, bias)) > 1


class _Exactly(torch.nn.Module):
    def __init__(self, operation: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.operation(a, b)


def test_pairs_share_a_label_and_rare_labels_come_as_often() -> None:
    y = label_rows(200, 5)
    y[:, 4] = 0
    y[:4] = 0
    y[:4, 4] = 1
    y[4:8] = 0
    pairs = balanced_pairs(y, 400, np.random.default_rng(0))
    assert ((y[pairs[:, 0]] & y[pairs[:, 1]]).sum(1) > 0).all()
    drawn = y[pairs].sum((0, 1))
    assert drawn[4] > drawn[:4].mean() / 3


def test_made_up_rows_stand_for_their_label_sets() -> None:
    y = label_rows(30, 4)
    y[0] = 0
    x = blocks(y, 0.0)
    rows, sets = LabelSetAugmenter(("subtract", "intersect", "union"), random_state=0).augment(x, y, 100)
    assert len(rows) == len(sets) == 100
    assert sets.any(1).all()
    np.testing.assert_array_equal(rows > 0.5, blocks(sets, 0.0) > 0.5)


def test_unions_help_where_examples_have_one_label_and_queries_several() -> None:
    y, test = np.eye(5, dtype=int).repeat(2, 0), label_rows(200, 5, seed=5, share=0.6)
    found: list[tuple[float, float]] = []
    for seed in range(2):
        x, q = blocks(y, 0.5, seed=seed), blocks(test, 0.5, seed=6)
        one, two = (
            average_precision_score(test, head("laso", ops=ops, random_state=seed).fit(x, y).logits(q))
            for ops in ((), ("union",))
        )
        found.append((float(one), float(two)))
    plain, made = np.mean(found, 0)
    assert made > plain + 0.02


def test_networks_and_negative_features(blobs: Any) -> None:
    y = label_rows(20, 3)
    x = blocks(y, 0.3)
    networks = LaSO(12).double()
    params: dict[str, Any] = {"epochs": 2, "hidden": 8, "pairs": 0.2, "random_state": 0}
    by = head("laso", networks=networks, **params).fit(x, y)
    assert not np.allclose(by.logits(x), head("laso", **params).fit(x, y).logits(x))
    moved = head("laso", **params).fit(x - 3, y)
    base = head("laso", **params).fit(x - x.min(0), y)
    np.testing.assert_allclose(moved.logits(x - 3), base.logits(x - x.min(0)), atol=1e-8)
    with pytest.raises(BadInput, match="set networks of width 5"):
        head("laso", networks=LaSO(5), **params).fit(x, y)


def test_the_nearest_items_have_the_labels() -> None:
    y = label_rows(60, 4)
    x = blocks(y, 0.1)
    a, b = np.arange(0, 30), np.arange(30, 60)
    found = label_set_retrieval_iou(np.maximum(x[a], x[b]), y[a] | y[b], x, y, sources=np.stack([a, b], 1))
    assert found[1] <= found[3] <= found[5]
    assert found[1] > 0.9
    itself = label_set_retrieval_iou(x, y, x, y, ks=(1,))
    assert itself[1] == 1.0
    apart = label_set_retrieval_iou(
        [[0.0], [9.0]], [[1, 0], [1, 0]], [[0.0], [1.0], [9.0]], [[1, 0], [0, 1], [1, 1]], ks=(1,)
    )
    assert apart[1] == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda x, y: LabelSetAugmenter(("xor",)).augment(x, y, 3), "ops are some of"),  # type: ignore[arg-type]
        (lambda x, y: LabelSetAugmenter(()).augment(x, y, 3), "ops are some of"),
        (lambda x, y: LabelSetAugmenter().augment(x - 5, y, 3), "sets need features from 0"),
        (lambda x, y: LabelSetAugmenter().augment(x, 2 * y, 3), "it takes 0 and 1"),
        (lambda x, y: LabelSetAugmenter().augment(x, y[:, 0], 3), "Y must be a matrix"),
        (lambda x, y: LabelSetAugmenter(("intersect",)).augment(np.eye(2), np.eye(2), 3), "no two rows leave labels"),
        (lambda x, y: LaSOTrainer(batch_size=1).fit(x, y), "batch_size must be"),
        (lambda x, y: LaSOTrainer(batch_size=500).fit(x, y), "less than a batch of 500 pairs"),
        (lambda x, y: LaSOTrainer().fit(x * np.nan, y), "finite numbers"),
        (lambda x, y: LaSO(0), "dim must be"),
        (lambda x, y: head("laso", ops=("xor",)).fit(x, y), "ops are some of"),
        (lambda x, y: head("laso", pairs=2.0).fit(x, y), "pairs must be"),
        (lambda x, y: head("laso", dropout=1.0).fit(x, y), "dropout must be"),
        (lambda x, y: head("laso", lr=0.0).fit(x, y), "lr must be"),
        (lambda x, y: label_set_retrieval_iou(x, y, x, y, ks=(99,)), "ks must be"),
        (lambda x, y: label_set_retrieval_iou(x, y, x, y, ks=(1.5,)), "ks must be"),  # type: ignore[arg-type]
        (lambda x, y: label_set_retrieval_iou(x, y, np.nan * x, y), "not finite"),
        (lambda x, y: label_set_retrieval_iou(x, y, x, y, sources=np.arange(7)), "sources are rows"),
        (lambda x, y: assess_label_sets(y, y, y, replicates=0), "replicates must be"),
        (lambda x, y: label_set_retrieval_iou(x[:1], 1 - y[:1], x[:9], y[:9] * 0), "no item has any"),
        (lambda x, y: assess_label_sets(y, y, y[:3]), "differ in shape"),
        (lambda x, y: assess_label_sets(0 * y, y, y), "no item has a label"),
        (lambda x, y: assess_label_sets(3 * y, y, y), "must be a matrix of 0 and 1"),
    ],
)
def test_bad_input_is_refused(act: Callable[[np.ndarray, np.ndarray], Any], message: str) -> None:
    y = label_rows(20, 3)
    with pytest.raises(BadInput, match=message):
        act(blocks(y, 0.3), y)
