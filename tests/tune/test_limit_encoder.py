"""LIMIT with its encoder: what moves, what the rows are, and what it is without training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handful.adapt import head
from handful.adapt.limit import WEIGHTS, Tasks, attended, scaled
from handful.core.losses import cross_entropy
from handful.errors import BadInput
from handful.tune import Data
from handful.tune.limit import Calibrated, LimitFSCIL, drawn_rows
from handful.tune.loop import tune
from handful.tune.recipe import Recipe, Stage

PART = "encoder"


class Small(nn.Module):
    """Two maps, a batch normalisation and dropout: rows ``[n, 6]`` to ``[n, 8]``."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.norm, self.drop, self.last = (
                nn.Linear(6, 12),
                nn.BatchNorm1d(12),
                nn.Dropout(),
                nn.Linear(12, 8),
            )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.drop(torch.relu(self.norm(self.first(x)))))
        return out


def items(classes: range, shots: int, seed: int = 0, noise: float = 0.6) -> Data:
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(30, 6, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(len(classes)).repeat_interleave(shots)
    x = centres[list(classes)][labels] + noise * torch.randn(len(labels), 6, generator=draw)
    return Data(x, labels, tuple(f"class {c}" for c in classes))


def learner(**params: Any) -> LimitFSCIL:
    how: dict[str, Any] = {"epochs": 3, "tasks": 2, "batch_size": 16, "lr": 0.05, "attention_lr": 0.05}
    return LimitFSCIL(Small().eval(), **{**how, **params})


def weights(model: LimitFSCIL) -> dict[str, Tensor]:
    merged = model.delta.merge(model.encoder)
    found = {name: t.clone() for name, t in model.encoder.state_dict().items()}
    merged.undo()
    return found


@pytest.mark.paper(181, oracle="a", part=PART)
def test_attention_that_says_nothing_leaves_the_nearest_mean_after_layer_norm() -> None:
    model = learner().fit_base(items(range(5), 8)).partial_fit(items(range(5, 7), 3))
    for name in ("out", "bias"):
        model.attention[name] = torch.zeros_like(model.attention[name])
    gain, shift = model.attention["gain"], model.attention["shift"]
    x = items(range(7), 2, seed=3).inputs

    def normed(rows: Tensor) -> Tensor:
        return torch.nn.functional.layer_norm(rows, rows.shape[-1:], gain, shift)

    unit = torch.nn.functional.normalize
    want = 16 * unit(normed(model.features(x)), dim=-1) @ unit(normed(model.prototypes), dim=-1).mT
    torch.testing.assert_close(model.logits(x), want, atol=1e-5, rtol=0)


@pytest.mark.paper(181, oracle="b", part=PART)
def test_classes_in_another_order_and_queries_alone_get_the_same_logits() -> None:
    model = learner().fit_base(items(range(5), 8))
    x = items(range(5), 2, seed=3).inputs
    logits, order = model.logits(x), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(model.logits(x[:1]), logits[:1], atol=1e-5, rtol=0)
    model.prototypes = model.prototypes[order]
    torch.testing.assert_close(model.logits(x), logits[:, order], atol=1e-5, rtol=0)


@pytest.mark.paper(181, oracle="d", part=PART)
def test_drawn_examples_are_of_classes_that_differ_and_rows_are_means() -> None:
    data = items(range(6), 5)
    draw = torch.Generator().manual_seed(0)
    rows = drawn_rows(data, torch.tensor([4, 1]), 3, draw)
    assert data.labels[rows].tolist() == [4, 4, 4, 1, 1, 1] and len(set(rows.tolist())) == 6
    assert len(drawn_rows(data, torch.tensor([2]), 9, draw)) == 5
    model = learner().fit_base(data)
    z = model.features(data.inputs)
    means = torch.stack([z[data.labels == c].mean(0) for c in range(6)])
    torch.testing.assert_close(model.prototypes, means, atol=1e-5, rtol=0)
    new = items(range(6, 8), 4)
    model.partial_fit(new)
    torch.testing.assert_close(model.prototypes[:6], means, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.prototypes[6], model.features(new.inputs)[:4].mean(0), atol=1e-5, rtol=0)
    assert model.classes == tuple(f"class {c}" for c in range(8))


def test_the_encoder_learns_and_stays_as_it_was() -> None:
    encoder = Small().eval()
    before = {name: t.clone() for name, t in encoder.state_dict().items()}
    model = LimitFSCIL(encoder, epochs=2, tasks=2, batch_size=16, lr=0.05).fit_base(items(range(5), 8))
    assert all(torch.equal(t, encoder.state_dict()[name]) for name, t in before.items())
    after = weights(model)
    for name, was in before.items():
        kept = "running" in name or "tracked" in name  # the statistics of the base
        assert torch.equal(was, after[name]) == kept, name


def test_at_rate_0_only_the_attention_learns() -> None:
    data = items(range(5), 8)
    model, start = learner(lr=0.0).fit_base(data), learner(epochs=0).fit_base(data)
    after = weights(model)
    assert all(torch.equal(t, after[name]) for name, t in Small().state_dict().items())
    assert all(not torch.equal(model.attention[name], start.attention[name]) for name in WEIGHTS)
    slow = learner(attention_lr=0.0).fit_base(data)
    assert all(torch.equal(slow.attention[name], start.attention[name]) for name in WEIGHTS)
    assert not torch.equal(weights(slow)["last.weight"], Small().last.weight)


def test_the_rate_falls_at_the_milestones() -> None:
    """After the only milestone, at which it falls to next to nothing, nothing moves any more."""
    data = items(range(5), 8)
    one = learner(epochs=1, milestones=(1,), gamma=1e-12).fit_base(data)
    three = learner(epochs=3, milestones=(1,), gamma=1e-12).fit_base(data)
    for name, weight in weights(one).items():
        torch.testing.assert_close(weights(three)[name], weight, atol=1e-6, rtol=0)


def test_a_frozen_encoder_leaves_the_head_on_features() -> None:
    """Without any training both answer alike from the same attention."""
    data, x = items(range(5), 8), items(range(5), 3, seed=3).inputs
    model = learner(epochs=0).fit_base(data)
    made: Any = head("limit-fscil", epochs=0).fit(Small().eval()(data.inputs).detach().numpy(), data.labels.numpy())
    made.state_.update(model.attention)
    got = made.logits(Small().eval()(x).detach().numpy())
    np.testing.assert_allclose(got, model.logits(x), atol=1e-4)


def test_one_step_is_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder's gradient comes from queries and from drawn examples; without dropout it can be written down."""
    monkeypatch.setattr("handful.adapt.limit.DROP_ATTENTION", 0.0)
    monkeypatch.setattr("handful.adapt.limit.DROP_OUT", 0.0)
    data, lr = items(range(4), 4), 0.1
    model = LimitFSCIL(Small().eval(), epochs=1, tasks=1, batch_size=99, lr=lr, way=4, shot=4).fit_base(data)
    net = (
        Small().eval()
    )  # all four classes play new ones, with all their examples: rows are the means, whatever is drawn
    start = learner(epochs=0, way=4).fit_base(data)
    y = data.targets
    z = scaled(net(data.inputs))
    rows = (y.mT @ z) / y.sum(0)[:, None]
    there = torch.ones(4, dtype=torch.bool)
    answers = Tasks("cosine", 16.0, 4, 1, False).logits(*attended(start.attention, rows, z, there))
    torch.autograd.backward(cross_entropy(answers, y, there))
    moved = weights(model)
    for name, p in net.named_parameters():
        g = p.grad + 5e-4 * p  # the first step of Nesterov's momentum is 1.9 times the gradient
        torch.testing.assert_close(moved[name], (p - lr * 1.9 * g).detach(), atol=2e-5, rtol=1e-4)


def test_rows_are_renewed_before_each_pass() -> None:
    seen: list[Tensor] = []
    data = items(range(4), 4)

    class Watched(Calibrated):
        def renew(self, model: nn.Module) -> None:
            before = self.rows.detach().clone()
            super().renew(model)
            seen.append((self.rows - before).abs().max())

    from handful.tune import limit

    stage = Stage(epochs=3, lr=0.1, batch=8, objectives=(limit.Pretended(4, 1, 2),), dropout=False)
    recipe = Recipe(
        limit._everything(Small()), stages=(stage,), readout=lambda: Watched(Tasks("cosine", 16.0, 2, 1, False))
    )
    tune(Small().eval(), data, recipe)
    assert len(seen) == 3 and seen[0] == 0 and min(seen[1:]) > 1e-3


def test_training_tells_new_classes_from_old_ones_better() -> None:
    base, test = items(range(12), 20, noise=1.0), items(range(18), 20, seed=5, noise=1.0)
    new = items(range(12, 18), 5, seed=7, noise=1.0)
    right = {}
    for epochs in (0, 20):
        model = (
            learner(epochs=epochs, batch_size=64, tasks=2, lr=0.02, milestones=(10,)).fit_base(base).partial_fit(new)
        )
        right[epochs] = np.mean(
            [a == test.classes[c] for a, c in zip(model.predict(test.inputs), test.labels, strict=True)]
        )
    assert right[20] > right[0] + 0.05, right


def test_the_classifier_may_be_trained_before() -> None:
    """With cosines to rows, on the base classes."""
    data = items(range(6), 10)
    model, plain = (learner(epochs=0, pretrain_epochs=n, pretrain_lr=0.1).fit_base(data) for n in (40, 0))

    def nearest(one: LimitFSCIL) -> float:
        unit = torch.nn.functional.normalize
        z = unit(one.features(data.inputs), dim=-1) @ unit(one.prototypes, dim=-1).mT
        return float(torch.nn.functional.cross_entropy(16 * z, data.labels))

    assert nearest(model) < 0.6 * nearest(plain)
    assert all(torch.equal(model.attention[name], plain.attention[name]) for name in WEIGHTS)


@pytest.mark.parametrize(
    "bad",
    [{"form": "sum"}, {"temperature": 0.0}, {"lr": -1.0}, {"attention_lr": -1.0}, {"tasks": 0}, {"way": 0}, {"shot": 0},
     {"pretrain_epochs": -1}, {"gamma": 2.0}],
    ids=str,
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        learner(**bad)


def test_what_cannot_be_learnt_is_refused() -> None:
    base = items(range(4), 4)
    with pytest.raises(BadInput, match="way is 5, but only 4 classes"):
        learner(way=5).fit_base(base)
    with pytest.raises(BadInput, match="call fit_base first"):
        learner().partial_fit(base)
    with pytest.raises(BadInput, match="call fit_base first"):
        learner().logits(base.inputs)
    with pytest.raises(BadInput, match="at least two classes"):
        learner().fit_base(items(range(1), 4))
    fitted = learner(epochs=0).fit_base(base)
    with pytest.raises(BadInput, match="'class 3' is known already"):
        fitted.partial_fit(items(range(3, 5), 4))
    with pytest.raises(BadInput, match="'class 9' has no item to learn from"):
        fitted.partial_fit(Data(base.inputs, torch.zeros(16, dtype=torch.long), ("class 8", "class 9")))
