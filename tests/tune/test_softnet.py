"""SoftNet: masks of weights, what moves when classes are added, and the authors' masks and loss."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from handful.core.train import SGD, seeded
from handful.errors import BadInput
from handful.tune import Data, Delta, Minor, Placed, SoftSubnet, Where, load_delta, save_delta
from handful.tune.recipe import Seen
from handful.tune.softnet import AmongAll, SoftNetFSCIL

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "softnet.json").read_text())


class Small(nn.Module):
    """Two convolutions with batch normalisations, and a linear map: images ``[n, 1, 8, 8]`` to ``[n, 12]``."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer1, self.norm1 = nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8)
            self.layer2, self.norm2 = nn.Conv2d(8, 12, 3, bias=False), nn.BatchNorm2d(12)
            self.out = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm1(self.layer1(x)))
        return self.out(torch.relu(self.norm2(self.layer2(h))).mean((-2, -1)))


def images(classes: range, shots: int, seed: int = 0) -> Data:
    """Noisy stripes, of a direction and a width a class."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(classes)).repeat_interleave(shots)
    place = torch.arange(8.0)
    waves = []
    for c in classes:
        angle, wave = torch.tensor(0.5 * c), 1.0 + 0.4 * (c % 3)
        waves.append(torch.sin(wave * (place[:, None] * angle.cos() + place * angle.sin())))
    x = torch.stack(waves)[labels][:, None] + 0.3 * torch.randn(len(labels), 1, 8, 8, generator=draw)
    return Data(x, labels, tuple(f"class {c}" for c in classes))


def learner(**params: Any) -> SoftNetFSCIL:
    how: dict[str, Any] = {"tune_layers": "layer2", "epochs": 20, "batch": 40, "capacity": 0.7, "lr": 0.05}
    return SoftNetFSCIL(Small().eval(), **{**how, **params})


def weights(model: SoftNetFSCIL) -> dict[str, Tensor]:
    """Of the encoder as it is now."""
    merged = model.delta.merge(model.encoder)
    found = {name: t.clone() for name, t in model.encoder.state_dict().items()}
    merged.undo()
    return found


def one(capacity: float, soft: bool = True, shape: Sequence[int] = (40, 50)) -> tuple[SoftSubnet, dict[str, Tensor]]:
    change = SoftSubnet(capacity, soft)
    draw = torch.Generator().manual_seed(1)
    begun = change.begin(torch.randn(shape, generator=draw), draw)
    return change, {**begun.trained, **begun.fixed}


@pytest.mark.paper(57, oracle="a")
def test_at_full_capacity_the_net_is_the_dense_one() -> None:
    net, x = Small().eval(), images(range(3), 4).inputs
    was = net(x)
    delta = Delta.begin(net, [Placed(SoftSubnet(1.0), Where((), sites=("layer1", "layer2", "out")))], torch.Generator())
    for mode in (False, True):
        delta.train(mode)
        with delta.attached(net, "weight"):
            assert torch.equal(net(x), was)
    assert all(bool((h.change.mask(h.tensors) == 1).all()) for h in delta.each())  # type: ignore[attr-defined]


@pytest.mark.paper(57, oracle="b")
@pytest.mark.parametrize("capacity", [0.03, 0.5, 0.9, 0.97])
def test_the_share_of_major_weights_and_the_size_of_minor_ones(capacity: float) -> None:
    change, t = one(capacity)
    mask, n = change.mask(t), t["W"].numel()
    assert abs(int((mask == 1).sum()) - capacity * n) <= 1 + 1e-9
    with seeded(0):  # the size of minor weights is drawn anew in every step
        once, again = (change.weight_in_training(t["W"], t) for _ in range(2))
    assert not torch.equal(once, again)
    for drawn in (mask, once / t["W"]):
        major = change.major(t["scores"])
        assert t["scores"][major].abs().min() > t["scores"][~major].abs().max()
        minor = drawn[~major]
        assert abs(float(minor.mean()) - 0.5) < 3 / (12 * len(minor)) ** 0.5
        assert float(minor.min()) >= 0 and float(minor.max()) < 1
    hard, h = one(capacity, soft=False)
    assert set(hard.mask(h).unique().tolist()) == {0.0, 1.0}


@pytest.mark.paper(57, oracle="c")
def test_a_later_class_moves_minor_weights_of_the_chosen_layer_only() -> None:
    model = learner().fit_base(images(range(4), 10))
    holder = next(h for h in model.delta.each() if h.site == "layer2" and h.parameter == "weight")
    major = holder.change.major(holder.scores).reshape(12, 8, 3, 3)  # type: ignore[attr-defined]
    before = weights(model)
    model.grow_lr, model.grow_epochs = 0.05, 5
    for first in (4, 6):
        model.partial_fit(images(range(first, first + 2), 5))
        after = weights(model)
        for name, was in before.items():
            if name != "layer2.weight":
                assert torch.equal(was, after[name]), name
        assert torch.equal(before["layer2.weight"][major], after["layer2.weight"][major])
        moved = (before["layer2.weight"] != after["layer2.weight"])[~major]
        assert moved.float().mean() > 0.9
        before = after


@pytest.mark.paper(57, oracle="d")
def test_the_gradient_of_a_score_is_that_of_its_mask() -> None:
    change, t = one(0.6, shape=(3, 4))
    x, target = torch.randn(5, 4), torch.randn(5, 3)
    scores = t["scores"].requires_grad_()

    def loss(weight: Tensor) -> Tensor:
        return (torch.sin(x @ weight.mT) - target).square().sum()

    with torch.random.fork_rng():
        torch.manual_seed(7)
        (got,) = torch.autograd.grad(loss(change.weight_in_training(t["W"], t)), scores)
        torch.manual_seed(7)
        mask = torch.where(change.major(scores), 1.0, torch.rand(3, 4)).double()
    t, x, target = {name: v.double() for name, v in t.items()}, x.double(), target.double()
    want = torch.empty(3, 4)
    for i in range(3):
        for j in range(4):
            step = torch.zeros(3, 4, dtype=torch.float64)
            step[i, j] = 1e-6
            want[i, j] = (loss((mask + step) * t["W"]) - loss((mask - step) * t["W"])) / 2e-6
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.paper(57, oracle="e")
def test_the_hard_mask_is_pruning() -> None:
    net = Small().eval()
    where = [Placed(SoftSubnet(0.4, soft=False), Where((), sites=("layer1", "layer2", "out")))]
    delta = Delta.begin(net, where, torch.Generator().manual_seed(0))
    theirs, x = copy.deepcopy(net), images(range(2), 3).inputs
    for holder in delta.each():
        module = theirs.get_submodule(holder.site)
        mask = holder.change.mask(holder.tensors)  # type: ignore[attr-defined]
        prune.custom_from_mask(module, "weight", mask.reshape(module.weight.shape))  # type: ignore[union-attr]
    with delta.attached(net, "weight"):
        torch.testing.assert_close(net(x), theirs(x), atol=0, rtol=0)


@pytest.mark.paper(57, oracle="f")
def test_without_steps_later_classes_are_nearest_means_of_a_frozen_encoder() -> None:
    base, later = images(range(4), 10), images(range(4, 7), 5)
    model = learner(grow_lr=0.0).fit_base(base)
    frozen = copy.deepcopy(model)
    model.partial_fit(later)
    every = images(range(7), 6, seed=1).inputs
    z, zs = frozen.features(every), [frozen.features(d.inputs[d.labels == c]) for d in (base, later)
                                     for c in range(len(d.classes))]  # fmt: skip
    means = torch.stack([rows.mean(0) for rows in zs])
    torch.testing.assert_close(model.logits(every), -torch.cdist(z, means).square(), atol=1e-4, rtol=1e-4)
    assert model.predict(every) == [f"class {int(c)}" for c in torch.cdist(z, means).argmin(1)]


def test_rates_of_the_base_classes_fall_once_and_later_steps_are_plain_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Watched(SGD):
        def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
            rates.append(rate)
            super().__call__(parameters, gradients, rate)

    monkeypatch.setattr("handful.tune.softnet.SGD", Watched)
    model = learner(epochs=4, temperature=0.3, grow_lr=0.05, grow_epochs=3).fit_base(images(range(4), 10))
    half = len(rates) // 2
    assert half and rates == pytest.approx([0.05] * half + [0.0005] * half)
    later, net = images(range(4, 6), 5), copy.deepcopy(model.encoder)
    entries, old = model._entries["layer2"], functional.normalize(model.prototypes, dim=1)
    net.load_state_dict(weights(model))
    w = entries["W"].clone().requires_grad_()
    steps, dense = torch.optim.SGD([w], 0.05, momentum=0.9, weight_decay=5e-4), net.layer2.weight.detach()  # type: ignore[union-attr]

    def now() -> Tensor:
        return dense.flatten().index_copy(0, entries["at"], entries["m"] * w).reshape(dense.shape)

    for _ in range(3):
        steps.zero_grad()
        z = torch.func.functional_call(net, {"layer2.weight": now()}, later.inputs)
        z = functional.normalize(z, dim=1)
        means = torch.stack([z[later.labels == c].mean(0) for c in range(2)])
        logits = z @ torch.cat([functional.normalize(means, dim=1), old]).T / 0.3
        functional.cross_entropy(logits, later.labels).backward()
        steps.step()
    model.partial_fit(later)
    torch.testing.assert_close(weights(model)["layer2.weight"], now().detach(), atol=1e-6, rtol=1e-4)


def test_an_item_of_weight_2_is_two_items() -> None:
    base, later, weight = images(range(3), 6), images(range(3, 5), 4), torch.tensor([2.0, 0.0, 1.0, 1.0] * 2)
    rows = torch.tensor([0, 0, 2, 3, 4, 4, 6, 7])
    weighed, twice = (learner(epochs=2, grow_lr=0.05, grow_epochs=2).fit_base(base) for _ in range(2))
    weighed.partial_fit(Data(later.inputs, later.labels, later.classes, weight))
    twice.partial_fit(Data(later.inputs[rows], later.labels[rows], later.classes))
    torch.testing.assert_close(weighed.prototypes, twice.prototypes, atol=1e-5, rtol=1e-4)
    with pytest.raises(BadInput, match="'class 4' has no item"):
        learner().fit_base(Data(later.inputs, later.labels, later.classes, (later.labels == 0).float()))


def test_an_encoder_in_training_mode_learns_what_one_at_rest_does() -> None:
    made = []
    for training in (False, True):
        model, drawn = learner(epochs=2, grow_lr=0.05, grow_epochs=2), torch.random.get_rng_state()
        model.encoder.train(training)
        model.fit_base(images(range(4), 6)).partial_fit(images(range(4, 6), 3)).features(images(range(2), 1).inputs)
        assert torch.equal(torch.random.get_rng_state(), drawn)
        assert all(part.training == training for part in model.encoder.modules())
        made.append((model.prototypes, *weights(model).values(), *weights(model).values()))
    assert all(torch.equal(rest, train) for rest, train in zip(*made, strict=True))


def test_the_authors_masks_and_loss() -> None:
    given, want = GOLDEN["inputs"], GOLDEN["expected"]
    for case, mask in zip(given["masks"], want["masks"], strict=True):
        change, scores = SoftSubnet(1 - case["sparsity"], case["soft"]), torch.tensor(case["scores"])
        with torch.random.fork_rng():
            torch.manual_seed(case["seed"])
            got = change.weight_in_training(scores, {"scores": scores, "W": torch.ones_like(scores)})
        torch.testing.assert_close(got, torch.tensor(mask), atol=1e-6, rtol=0)
    for case, loss in zip(given["losses"], want["losses"], strict=True):
        features, old = torch.tensor(case["features"]), torch.tensor(case["prototypes"])
        ways = len(features) // case["shots"]
        targets = torch.eye(ways).repeat_interleave(case["shots"], 0)
        seen = Seen(None, None, None, None, targets, torch.ones(len(features)), 0, 1, torch.Generator())  # type: ignore[arg-type]
        seen.__dict__["features"] = features
        assert float(AmongAll(old)(seen)) == pytest.approx(loss, abs=1e-5)


def test_it_learns_and_adds_classes(tmp_path: Any) -> None:
    model = learner(epochs=40).fit_base(images(range(5), 20))
    state = {name: t.clone() for name, t in model.encoder.state_dict().items()}
    model.partial_fit(images(range(5, 7), 5)).partial_fit(images(range(7, 9), 5))
    for name, t in model.encoder.state_dict().items():
        assert torch.equal(t, state[name])
    test = images(range(9), 20, seed=1)
    right = (model.logits(test.inputs).argmax(1) == test.labels).float()
    assert right[:100].mean() > 0.8 and right[100:].mean() > 0.5
    assert model.classes == test.classes
    again = learner(epochs=40).fit_base(images(range(5), 20))
    assert torch.equal(again.prototypes, model.prototypes[:5])
    save_delta(model.delta, tmp_path / "d")
    features = model.features(test.inputs)
    with load_delta(tmp_path / "d", model.encoder).attached(model.encoder, "weight"), torch.no_grad():
        torch.testing.assert_close(model.encoder(test.inputs), features)


def test_bad_input() -> None:
    base = images(range(3), 4)
    for wrong in (0.0, 1.5, -1.0):
        with pytest.raises(BadInput, match="capacity is a share"):
            learner(capacity=wrong)
    with pytest.raises(BadInput, match="temperature"):
        learner(temperature=0.0)
    wrong: Any
    for name, wrong in [
        ("epochs", math.nan), ("lr", "x"), ("grow_lr", math.inf), ("weight_decay", -1), ("batch", 1.5), ("seed", None),
        ("tune_layers", 3), ("skip", "out"), ("temperature", None), ("capacity", "x"),
    ]:  # fmt: skip
        with pytest.raises(BadInput, match=f"^{name} "):
            learner(**{name: wrong})
    with pytest.raises(BadInput, match="metric is"):
        learner(metric="manhattan")
    with pytest.raises(BadInput, match="tune_layers 'layer9' names none of the maps: layer1"):
        learner(tune_layers="layer9").fit_base(base)
    with pytest.raises(BadInput, match=r"tune_layers '\(' is no regular expression"):
        learner(tune_layers="(")
    with pytest.raises(BadInput, match="no map 'fc'"):
        learner(skip=("fc",)).fit_base(base)
    with pytest.raises(BadInput, match="call fit_base first"):
        learner().partial_fit(base)
    with pytest.raises(BadInput, match="call fit_base first"):
        learner().predict(base.inputs)
    with pytest.raises(BadInput, match="no item to learn from"):
        learner().fit_base(Data(base.inputs, base.labels, (*base.classes, "none")))
    bare = learner()
    bare.encoder.token = nn.Parameter(torch.zeros(2))
    with pytest.raises(BadInput, match="token is in no module"):
        bare.fit_base(base)
    fitted = learner(epochs=2).fit_base(base)
    with pytest.raises(BadInput, match="'class 2' is known already"):
        fitted.partial_fit(images(range(2, 5), 3))
    with pytest.raises(BadInput, match="no item to learn from"):
        fitted.partial_fit(Data(base.inputs, base.labels, ("x", "y", "z", "none")))
    assert len(fitted.classes) == 3 == len(fitted.prototypes)
    with pytest.raises(BadInput, match="needs a weight of a map"):
        SoftSubnet().begin(torch.ones(4), torch.Generator())
    with pytest.raises(BadInput, match="entries cannot learn"):
        Minor(9).begin(torch.ones(2, 2), torch.Generator())
