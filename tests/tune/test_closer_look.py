"""Fine-tuning, URL, TSA and eTT as paper 111 compares them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune import Data, Delta, Placed, Where, tune
from handful.tune.closer_look import TSA, URL, FineTune, choose, grid
from handful.tune.prefixes import ETT, Prefixes
from handful.tune.residual import Residual


class Blocks(nn.Module):
    """A network of two residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.layer1 = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 9, 1))
        self.layer2 = nn.Sequential(nn.Conv2d(9, 8, 3, stride=2, padding=1), nn.ReLU())
        self.norm.running_mean += 0.1  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(self.norm(self.stem(x)))).mean((2, 3))


@pytest.fixture
def net() -> nn.Module:
    return Blocks().eval()


def task(shots: int, seed: int = 0, noise: float = 1.0) -> Data:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(3 * shots) % 3
    x = noise * torch.randn(len(labels), 3, 8, 8, generator=draw) + 0.5 * torch.eye(3)[labels][:, :, None, None]
    return Data(x, labels)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def by_hand(learns: list[Tensor], loss: object, lrs: tuple[float, ...], epochs: int) -> None:
    """The authors' loop: SGD with momentum 0.9, one batch a pass, half a cosine."""
    optimisers = [torch.optim.SGD([p], lr=lr, momentum=0.9) for p, lr in zip(learns, lrs, strict=True)]
    for step in range(epochs):
        for optimiser, lr in zip(optimisers, lrs, strict=True):
            optimiser.param_groups[0]["lr"] = 0.5 * lr * (1 + math.cos(math.pi * step / epochs))
            optimiser.zero_grad()
        loss().backward()  # type: ignore[operator]
        for optimiser in optimisers:
            optimiser.step()


@pytest.mark.paper(111, oracle="d", part="adapters that tune")
def test_without_a_rate_of_the_encoder_fine_tuning_is_training_the_head(net: nn.Module) -> None:
    data, query, was = task(8), task(20, seed=1), bits(net)
    tuned = tune(net, data, FineTune(0.0, 0.5, 10).recipe(net))
    with torch.no_grad():
        x, q = (functional.normalize(net(part.inputs), dim=1) for part in (data, query))
    w, b = torch.ones(3, 8, requires_grad=True), torch.zeros(3, requires_grad=True)
    by_hand([w, b], lambda: functional.cross_entropy(x @ w.T + b, data.labels), (0.5, 0.5), 10)
    torch.testing.assert_close(tuned.logits(query.inputs), q @ w.T + b)
    assert not tuned.delta.trainable() and bits(net) == was
    nearly = tune(net, data, FineTune(1e-9, 0.5, 10).recipe(net))  # the whole encoder learns, at no speed
    assert nearly.delta.trainable() == sum(p.numel() for p in net.parameters())
    torch.testing.assert_close(nearly.logits(query.inputs), tuned.logits(query.inputs), atol=1e-5, rtol=1e-4)


def test_fine_tuning_moves_every_number_as_the_plain_loop_does(net: nn.Module) -> None:
    data, was = task(4), bits(net)
    tuned = tune(net, data, FineTune(0.05, 0.1, 6).recipe(net))
    assert bits(net) == was
    twin = Blocks().eval()
    w, b = torch.ones(3, 8, requires_grad=True), torch.zeros(3, requires_grad=True)
    learns = [w, b, *twin.parameters()]

    def loss() -> Tensor:
        return functional.cross_entropy(functional.normalize(twin(data.inputs), dim=1) @ w.T + b, data.labels)

    by_hand(learns, loss, (0.1, 0.1, *[0.05] * (len(learns) - 2)), 6)
    kept = tuned.merge()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter, dict(twin.named_parameters())[name].detach())
    kept.undo()
    assert bits(net) == was


@pytest.mark.paper(111, oracle="d", part="adapters that tune")
@pytest.mark.paper(111, oracle="e", part="adapters that tune")
@pytest.mark.parametrize("method", [URL(epochs=0), TSA(epochs=0)])
def test_without_an_epoch_it_is_scikit_learns_nearest_centroid(net: nn.Module, method: URL | TSA) -> None:
    data, query = task(6), task(40, seed=1)
    tuned = tune(net, data, method.recipe(net))
    with torch.no_grad():
        x, q = (functional.normalize(net(part.inputs), dim=1).double().numpy() for part in (data, query))
    means = np.stack([x[data.labels == c].mean(0) for c in range(3)])
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    centroid = NearestCentroid().fit(np.repeat(unit, 2, 0), np.repeat(np.arange(3), 2))
    logits = tuned.logits(query.inputs)
    assert (logits.argmax(1).numpy() == centroid.predict(q)).all()
    torch.testing.assert_close(logits, torch.tensor(10 * q @ centroid.centroids_.T).float())


def test_an_item_of_weight_2_is_two_items(net: nn.Module) -> None:
    data, rows = task(4), torch.tensor([0, 0, 2, 4, 5, 6, 6, 7, 8, 9, 10, 11])
    weight = torch.bincount(rows, minlength=12).float()
    twice, weighed = Data(data.inputs[rows], data.labels[rows]), Data(data.inputs, data.labels, weight=weight)
    one, two = (tune(net, some, URL(0.5, 4).recipe(net)).logits(data.inputs) for some in (weighed, twice))
    torch.testing.assert_close(one, two)


def test_url_learns_the_alignment_alone(net: nn.Module) -> None:
    data, query = task(6), task(30, seed=1)
    tuned = tune(net, data, URL(0.5, 12).recipe(net))
    with torch.no_grad():
        x, q = net(data.inputs), net(query.inputs)
    align, y = torch.eye(8, requires_grad=True), functional.one_hot(data.labels).float()

    def scores(z: Tensor) -> Tensor:
        support = functional.normalize(x @ align.T, dim=1)
        return 10 * functional.normalize(z @ align.T, dim=1) @ functional.normalize(y.T @ support, dim=1).T

    by_hand([align], lambda: functional.cross_entropy(scores(x), data.labels), (0.5,), 12)
    torch.testing.assert_close(tuned.logits(query.inputs), scores(q).detach(), atol=1e-5, rtol=1e-4)
    assert tuned.losses[-1] < tuned.losses[0]


def test_tsa_is_a_convolution_of_one_tap_beside_each_of_nine(net: nn.Module) -> None:
    recipe = TSA().recipe(net)
    assert recipe.changes[0].where.sites == ("layer1.0", "layer2.0")  # not the stem, nor what has one tap
    x, conv = torch.randn(2, 9, 8, 8, generator=torch.Generator().manual_seed(0)), net.layer2[0]  # type: ignore[index]
    delta = Delta.begin(net, [Placed(Residual(9), Where(sites=("layer2.0",)))], torch.Generator())
    a = next(delta.each()).tensors["a"]
    with torch.no_grad():
        a += torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
        want = conv(x) + functional.conv2d(x, a[:, :, None, None], stride=2)
        with delta.attached(net):
            torch.testing.assert_close(conv(x), want)
    data = task(6)
    tuned = tune(net, data, TSA(0.05, 0.1, 15).recipe(net))
    assert tuned.losses[-1] < tuned.losses[0]
    assert {name for h in tuned.delta.each() for name in h.tensors} == {"a"}
    with pytest.raises(BadInput, match="no convolution of 9 taps"):
        Delta.begin(net, [Placed(Residual(9), Where(sites=("layer1.2",)))], torch.Generator())


class Vision(nn.Module):
    """A small ViT that gives its class token."""

    def __init__(self) -> None:
        from transformers import ViTConfig, ViTModel

        super().__init__()
        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8,
            patch_size=4, attn_implementation="eager",
        )  # fmt: skip
        self.vit = ViTModel(config, add_pooling_layer=False)
        with torch.no_grad():
            for parameter in self.vit.parameters():
                if parameter.dim() > 1:
                    parameter *= 10  # the usual beginnings are so small that all images look the same

    def forward(self, x: Tensor) -> Tensor:
        return self.vit(x).last_hidden_state[:, 0]


@pytest.fixture(scope="module")
def vision() -> nn.Module:
    return Vision().eval()


def test_prefixes_begin_as_what_the_classes_attend_to(vision: nn.Module) -> None:
    data, readout = task(4), Prefixes()
    readout.begin(vision, data, torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = vision.vit(data.inputs, output_attentions=True, output_hidden_states=True)  # type: ignore[operator]
    last = seen.attentions[-1][:, :, 0, 1:]
    share = last / last.sum(-1, keepdim=True)  # softmax over the patches alone
    each = functional.normalize(torch.einsum("nht,ntd->nd", share, seen.hidden_states[0][:, 1:]) / 2, dim=1)
    means = torch.stack([each[data.labels == c].mean(0) for c in range(3)])
    torch.testing.assert_close(readout.start, functional.normalize(means, dim=1))
    assert torch.equal(readout.u, readout.start)


def test_a_prefix_stands_in_front_of_keys_and_values(vision: nn.Module) -> None:
    data, readout = task(4), Prefixes()
    readout.begin(vision, data, torch.Generator().manual_seed(0))
    one, came = vision.vit.layers[1].attention, dict[str, Tensor]()  # type: ignore[union-attr, index]
    handles = [
        one.q_proj.register_forward_pre_hook(lambda m, args: came.__setitem__("into", args[0])),
        one.o_proj.register_forward_hook(lambda m, args, y: came.__setitem__("out", y)),
    ]
    with torch.no_grad():
        features = readout.look(vision, data.inputs)
        for handle in handles:
            handle.remove()
        made = readout.wide(torch.tanh(readout.narrow(readout.u))).view(3, 2, 2, 2, 8)[:, 1]  # class, k or v, head, 8
        q, k, v = (
            m(came["into"]).view(12, -1, 2, 8).transpose(1, 2) for m in (one.q_proj, one.k_proj, one.v_proj)
        )  # [n, head, T, 8]
        before, beside = made.permute(1, 2, 0, 3)  # [head, C, 8]
        score = torch.cat([q @ before.mT, q @ k.mT], -1).div(8**0.5).softmax(-1)
        want = score[..., :3] @ beside + score[..., 3:] @ v
        torch.testing.assert_close(came["out"], one.o_proj(want.transpose(1, 2).flatten(2)))
    assert (features - vision(data.inputs)).abs().max() > 1e-3


def test_ett_learns_prefixes_offsets_and_the_alignment(vision: nn.Module) -> None:
    data, was = task(5), bits(vision)
    tuned = tune(vision, data, ETT(0.01, 0.02, 12, whole=False).recipe(vision))
    assert tuned.losses[-1] < tuned.losses[0] and bits(vision) == was
    assert {(h.site.split(".")[-1], h.parameter) for h in tuned.delta.each()} == {("o_proj", "bias"), ("fc2", "bias")}
    readout = tuned.readout
    assert isinstance(readout, Prefixes) and not torch.equal(readout.u, readout.start)
    assert readout.E.abs().max() > 0 and readout.centre.abs().max() > 0
    assert tuned.logits(data.inputs).shape == (15, 3)
    whole = tune(vision, data, ETT(0.01, 0.02, 1).recipe(vision))
    assert whole.delta.trainable() == sum(p.numel() for p in vision.parameters())


def test_the_gain_of_the_alignment_is_a_rate_of_its_own(net: nn.Module) -> None:
    from functools import partial

    from handful.tune import Recipe
    from handful.tune.closer_look import stage
    from handful.tune.nearest import NearestClass, NearestLoss

    data = task(5)

    def learnt(lr: float, gain: float) -> Tensor:
        made = partial(NearestClass, gain=gain)
        found = tune(net, data, Recipe(objectives=(NearestLoss(),), stages=(stage(0, lr, 5),), readout=made))
        assert isinstance(found.readout, NearestClass)
        return gain * found.readout.E.detach()

    torch.testing.assert_close(learnt(0.1, 2.0), learnt(0.4, 1.0), atol=1e-6, rtol=1e-4)


def test_settings_are_chosen_by_tasks_of_their_own(net: nn.Module) -> None:
    tasks = [(task(4, seed=s, noise=2.0), task(15, seed=100 + s, noise=2.0)) for s in range(3)]
    methods = [URL(0.0, 1), URL(0.5, 20), FineTune(0.0, 0.0, 1)]
    found = choose(net, tasks, methods)
    assert found.method == methods[int(np.argmax(found.accuracy))]
    assert found.accuracy[2] == pytest.approx(1 / 3)  # a head of ones tells nothing apart
    support, query = tasks[0]
    right = tune(net, support, methods[1].recipe(net)).logits(query.inputs).argmax(1) == query.labels
    only = choose(net, tasks[:1], methods[1:2])
    assert only.accuracy == (pytest.approx(float(right.float().mean())),)
    assert len(grid(FineTune)) == len(grid(ETT)) == 27 and len(grid(URL)) == 9
    assert FineTune() in grid(FineTune) and TSA() in grid(TSA) and URL() in grid(URL)


def test_bad_input(net: nn.Module, vision: nn.Module) -> None:
    data, query = task(3), task(4, seed=1)
    for methods, tasks, test, said in [
        ([], [(data, query)], [], "0 settings"),
        ([URL()], [], [], "0 tasks"),
        ([URL()], [(data, data)], [], "9 items of the query are in the support"),
        ([URL()], [(data, query)], [query], "12 items are tested as well"),
    ]:
        with pytest.raises(BadInput, match=said):
            choose(net, tasks, methods, test=test)
    for model, method, said in [
        (vision, TSA(), "networks of residual blocks"),
        (net, TSA(names="("), "no regular expression"),
        (net, FineTune(-1.0), "not below 0"),
        (net, FineTune(head="mlp"), "'fc' or 'cc'"),
        (net, ETT(), "prefixes need a transformer"),
        (vision, ETT(0.0), "above 0"),
    ]:
        with pytest.raises(BadInput, match=said):
            tune(model, data, method.recipe(model))  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="odd number"):
        Residual(4)
    net.token = nn.Parameter(torch.zeros(2))
    with pytest.raises(BadInput, match=r"token is in no module .* nn.Sequential"):
        FineTune().recipe(net)
    assert tune(nn.Sequential(net), data, FineTune(epochs=0).recipe(nn.Sequential(net))).delta.trainable() == sum(
        p.numel() for p in net.parameters()
    )


def test_prefixes_are_refused_where_attention_sees_more_than_its_maps(bert: nn.Module) -> None:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, x: Tensor) -> Tensor:
            return self.bert(x, attention_mask=(x > 0).long()).last_hidden_state[:, 0]

    ids = torch.randint(1, 60, (6, 7), generator=torch.Generator().manual_seed(0))
    Prefixes().begin(Text().eval(), Data(ids, torch.arange(6) % 2), torch.Generator())
    ids[0, 4:] = 0
    with pytest.raises(BadInput, match="a mask, rotations"):
        Prefixes().begin(Text().eval(), Data(ids, torch.arange(6) % 2), torch.Generator())


def test_the_cosine_head_learns_its_scale(net: nn.Module) -> None:
    tuned = tune(net, task(5), FineTune(0.01, 0.1, 15, head="cc").recipe(net))
    assert tuned.losses[-1] < tuned.losses[0]
    assert float(tuned.readout.scale.detach()) != 10.0  # type: ignore[union-attr, operator]
