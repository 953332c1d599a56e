"""TAPS (198): scores, what they switch, what is stored, and the first author's code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.core.train import SGD
from handful.errors import BadInput
from handful.tune import Data, Delta, Linear, LoRA, Own, Placed, Recipe, Stage, Where, tune
from handful.tune.recipes import recipe
from handful.tune.taps import TAPS, EachTask, Scored, TaskWise, active_layers, joint, patch

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "taps.json").read_text(encoding="utf-8"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fc1, self.norm, self.fc2 = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.norm(self.fc1(x))))  # type: ignore[no-any-return]


@pytest.fixture
def net() -> Net:
    return Net().eval()


def task(seed: int, ways: int = 3) -> Data:
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(24) % ways
    return Data(torch.randn(24, 6, generator=g) + 2 * torch.randn(ways, 6, generator=g)[labels], labels)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@pytest.mark.paper(198, oracle="a")
def test_at_first_no_bit_of_the_output_is_another(net: Net) -> None:
    x = task(0).inputs
    delta = Delta.begin(net, TAPS().recipe().changes, torch.Generator())
    before = net(x)
    with delta.attached(net):
        assert torch.equal(net(x), before)
    assert active_layers(delta) == ("fc1", "fc2")


@pytest.mark.paper(198, oracle="b")
def test_without_a_penalty_it_is_plain_fine_tuning(net: Net) -> None:
    data = task(0)
    made = TAPS(lam=0.0, score=1e6, epochs=5, batch=8, lr=0.02).recipe()
    mine = tune(net, data, made)
    plain = (Placed(Own(), made.changes[0].where), *made.changes[1:])
    theirs = tune(net, data, Recipe(plain, (made.objectives[0],), made.stages, readout=Linear))
    torch.testing.assert_close(torch.tensor(mine.losses), torch.tensor(theirs.losses), atol=1e-5, rtol=1e-5)
    assert mine.losses[-1] < mine.losses[0] - 0.1
    for a, b in zip(mine.delta.holders, theirs.delta.holders, strict=True):
        w = net.get_submodule(a.site).get_buffer(a.parameter) if "running" in a.parameter else None
        w = net.get_submodule(a.site).get_parameter(a.parameter).detach() if w is None else w
        torch.testing.assert_close(a(w), b(w), atol=1e-5, rtol=1e-4)


@pytest.mark.paper(198, oracle="c")
def test_under_a_heavy_penalty_no_layer_is_left(net: Net) -> None:
    data = task(0)
    tuned = tune(net, data, recipe("taps", lam=50.0, epochs=6, batch=8, warmup=2))
    assert not active_layers(tuned.delta)
    small = patch(tuned.delta, net)
    assert {h.site for h in small.holders} == {"norm"}
    logits = tuned.logits(data.inputs)
    with small.attached(net), torch.no_grad():
        torch.testing.assert_close(tuned.readout(net(data.inputs), net), logits)
    free = tune(net, data, recipe("taps", lam=50.0, epochs=3, batch=8, warmup=2))
    assert active_layers(free.delta) == ("fc1", "fc2")  # the warm-up is without the penalty


@pytest.mark.paper(198, oracle="d")
@pytest.mark.paper(198, oracle="e")
@pytest.mark.parametrize("g", [0.3, 0.1, 0.05, -1.0])
def test_the_gradient_of_a_score_goes_straight_through(g: float) -> None:
    w, d = torch.randn(4, 3), torch.randn(4, 3, requires_grad=True)
    score = torch.tensor(g, requires_grad=True)
    out = Scored().weight(w, {"D": d, "g": score})
    on = g >= 0.1
    assert torch.equal(out, w + d if on else w)
    out.retain_grad()
    out.sin().sum().backward()
    assert out.grad is not None and score.grad is not None and d.grad is not None
    torch.testing.assert_close(score.grad, (out.grad * d).sum())
    assert float(score.grad) != 0
    assert torch.equal(d.grad, out.grad if on else torch.zeros(4, 3))


@pytest.mark.paper(198, oracle="i")
@pytest.mark.parametrize("g", ["0.15", "0.05"])
def test_it_is_the_authors_code_on_a_convolution(g: str) -> None:
    given, expected = {k: torch.tensor(v) for k, v in GOLDEN["inputs"].items()}, GOLDEN["expected"][g]
    net = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3, bias=False)}).requires_grad_(False)
    net["conv"].weight.data = given["weight"]
    delta = Delta.begin(net, [Placed(Scored(), Where(names="conv"))], torch.Generator())
    h = delta.holders[0]
    h.D.data, h.g.data = given["D"].flatten(1), torch.tensor(float(g))
    with delta.attached(net):
        y = net["conv"](given["x"])
        y.square().sum().backward()
    torch.testing.assert_close(y, torch.tensor(expected["y"]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(h.D.grad, torch.tensor(expected["D"]).flatten(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(h.g.grad, torch.tensor(expected["g"]), atol=1e-3, rtol=1e-4)


@pytest.mark.paper(198, oracle="f")
def test_tasks_do_not_touch_the_base_nor_each_other(net: Net) -> None:
    was, a, b = bits(net), task(0), task(1, 4)
    first = tune(net, a, recipe("taps", epochs=4, batch=8))
    before = first.logits(a.inputs)
    second = tune(net, b, recipe("taps", epochs=4, batch=8))
    assert bits(net) == was
    assert torch.equal(first.logits(a.inputs), before)
    assert second.logits(b.inputs).shape == (24, 4)


@pytest.mark.paper(198, oracle="g")
def test_only_what_is_active_is_stored(net: Net) -> None:
    delta = Delta.begin(net, TAPS().recipe().changes, torch.Generator())
    scored = {h.site: h for h in delta.holders if h.change.key == "scored"}
    scored["fc1"].g.data.fill_(0.0999)
    small = patch(delta, net)
    stored = sum(tensor.numel() for tensor in small.state_dict().values())
    assert stored == (5 * 8 + 1) + 2 * 8 + 2 * 8  # fc2 and its score, the norm, its statistics
    assert active_layers(small) == active_layers(delta) == ("fc2",)
    small.check_base(net)


def test_a_joint_backbone_serves_all_tasks_better(net: Net) -> None:
    tasks = {"a": task(0), "b": task(1, 4)}
    probe = Recipe(stages=(Stage(epochs=30, lr=0.05, trains=("readout",)),), readout=Linear)
    before = [tune(net, data, probe).losses[-1] for data in tasks.values()]
    was = bits(net)
    own = (Placed(Own()), Placed(Own(), Where(("up", "down"), "bias")))
    kept = joint(net, tasks, own, Stage(epochs=40, lr=0.01, batch=8))
    assert bits(net) != was
    after = [tune(net, data, probe).losses[-1] for data in tasks.values()]
    assert all(a < b for a, b in zip(after, before, strict=True))
    kept.undo()
    assert bits(net) == was
    with pytest.raises(BadInput, match="two tasks"):
        joint(net, {"a": tasks["a"]}, own, Stage(epochs=1))


def test_each_item_is_judged_among_its_own_tasks_classes() -> None:
    logits = torch.randn(5, 7)
    targets = torch.block_diag(torch.eye(3), torch.eye(4)[:2])

    class Fixed:
        pass

    seen = Fixed()
    seen.logits, seen.targets = logits, targets  # type: ignore[attr-defined]
    by_hand = functional.cross_entropy(logits[:3, :3], torch.arange(3)) + functional.cross_entropy(
        logits[3:, 3:], torch.arange(2)
    )
    torch.testing.assert_close(TaskWise((3, 4))(seen), by_hand)  # type: ignore[arg-type]
    data = Data(torch.zeros(9, 1), torch.arange(9) % 2)
    sampler = EachTask((3, 6))
    assert sampler.steps(data, 2, 2) == 6
    draws = sampler.draws(data, 2, torch.Generator().manual_seed(0))
    seen_rows = torch.stack([next(draws) for _ in range(6)])
    assert bool(((seen_rows[:, :2] < 3) & (seen_rows[:, 2:] >= 3)).all())
    assert seen_rows[:, :2].flatten().bincount().tolist() == [4, 4, 4]
    assert seen_rows[:, 2:].flatten().bincount().tolist()[3:] == [2] * 6


def test_what_does_not_fit_is_refused(net: Net) -> None:
    with pytest.raises(BadInput, match="can never rise"):
        Scored(0.2, 0.1)
    for wrong in ({"epochs": 0}, {"warmup": -2}):
        with pytest.raises(BadInput, match="epochs are at least 1 and warmup at least -1"):
            recipe("taps", **wrong)
    with pytest.raises(BadInput, match="would reward"):
        TAPS(lam=-1.0).recipe()
    stage = Stage(steps=1, update=lambda decay: SGD(0.9, decay))
    with pytest.raises(BadInput, match="no layer has a score"):
        tune(net, task(0), Recipe((Placed(LoRA(2)),), TAPS().recipe().objectives, (stage,), readout=Linear))
