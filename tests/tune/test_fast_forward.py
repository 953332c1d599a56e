"""Fast forward (119): how far a walk goes, what it leaves alone, and what it saves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handful.core.train import SGD, AdamW
from handful.errors import BadInput
from handful.tune import CrossEntropy, Data, Linear, LoRA, Own, Placed, Recipe, Seen, Stage, Where, tune
from handful.tune.fast_forward import FastForward, FastForwardLoRA
from handful.tune.recipe import Closures


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fc1, self.drop, self.fc2 = nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.drop(torch.tanh(self.fc1(x))))  # type: ignore[no-any-return]


def items(seed: int = 0, n: int = 24) -> Data:
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return Data(torch.randn(n, 6, generator=g) + 2 * torch.eye(6)[labels], labels)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def walked(
    theta: Tensor, loss: Callable[[Tensor], Tensor], step: FastForward, rate: float, update: Any = None
) -> tuple[Tensor, Any]:
    """Theta after one step of descent and the walk that follows, and the optimiser."""
    optimiser = update or SGD(0.0)
    parameter = nn.Parameter(theta.clone())

    def move(gradients: Sequence[Tensor]) -> None:
        optimiser([parameter.data], tuple(gradients), rate)

    closures = Closures({"loss": lambda: loss(parameter), "held": lambda: loss(parameter)}, step.interval - 1, 100)
    step(closures, [parameter], move)
    return parameter.detach(), optimiser


@pytest.mark.paper(119, oracle="a")
@pytest.mark.parametrize("ends", [2.3, 6.8, 0.4, 11.2])
def test_a_walk_ends_nearest_to_the_bottom_of_a_parabola(ends: float) -> None:
    """The bottom lies ``ends`` steps beyond the first: theta_1 = theta_0 - rate g, Delta = theta_1 - theta_0."""
    goal, start = 3.0, 1.0
    share = 1 / (1 + ends)  # of the way that the first step goes
    rate = share / 2  # for (theta - goal)^2

    def loss(theta: Tensor) -> Tensor:
        return (theta - goal).square().sum()

    delta = share * (goal - start)
    for strict, length in ((True, round(ends)), (False, max(round(ends), 1) + 1)):
        step = FastForward(strict=strict)
        theta, _ = walked(torch.tensor([start]).double(), loss, step, rate)
        assert float(theta) == pytest.approx(start + (1 + length) * delta, abs=1e-9)
        assert step.walks[0].length == length


@pytest.mark.paper(119, oracle="b")
@pytest.mark.parametrize("seed", range(5))
def test_a_walk_ends_nearest_to_the_bottom_in_many_dimensions(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(7, 7, generator=g, dtype=torch.float64)
    hessian, goal = root @ root.mT / 7 + 0.1 * torch.eye(7).double(), torch.randn(7, generator=g, dtype=torch.float64)
    start = torch.randn(7, generator=g, dtype=torch.float64)

    def loss(theta: Tensor) -> Tensor:
        return (theta - goal) @ hessian @ (theta - goal) / 2

    step = FastForward()
    theta, _ = walked(start, loss, step, 0.03)
    delta = -0.03 * hessian @ (start - goal)
    there = hessian @ (start + delta - goal)
    k = round(float(-(there @ delta) / (delta @ hessian @ delta)))
    assert k > 2
    torch.testing.assert_close(theta, start + (1 + k) * delta)
    losses = step.walks[0].losses
    assert losses[k] == min(losses) <= losses[0]


@pytest.mark.paper(119, oracle="c")
def test_the_held_out_loss_never_rises_in_a_walk() -> None:
    step = FastForward(interval=2)
    recipe = Recipe((Placed(LoRA(2)),), stages=(Stage(epochs=10, lr=0.01, batch=8),), readout=Linear, step=step)
    tune(Net().eval(), items(), recipe, held=items(1, 32))
    assert len(step.walks) == 15 and sum(walk.length for walk in step.walks) > 15
    assert all(walk.losses[walk.length] <= walk.losses[0] for walk in step.walks)
    assert [walk.step for walk in step.walks] == list(range(2, 31, 2))


@pytest.mark.paper(119, oracle="d")
def test_without_a_walk_it_is_the_plain_run_to_the_bit() -> None:
    stage = Stage(epochs=8, lr=0.01, batch=8)
    plain = Recipe((Placed(LoRA(2, dropout=0.2)),), stages=(stage,), readout=Linear)

    class Rising:
        """Its value on held-out examples rises with every answer that was not seen since the last step."""

        name, separable = "rising", True

        def __init__(self) -> None:
            self.seen: list[Tensor] = []

        def __call__(self, seen: Seen) -> Tensor:
            if seen.model.training:
                self.seen = []
                return torch.zeros(())
            if not any(torch.equal(seen.features, one) for one in self.seen):
                self.seen.append(seen.features)
            return torch.tensor(1e6 * len(self.seen))

    runs = [
        tune(Net().eval(), items(), plain),
        tune(Net().eval(), items(), replace(plain, step=FastForward(interval=10**9)), held=items(1)),
    ]
    step = FastForward(interval=2)
    rising = replace(plain, objectives=(CrossEntropy(), Rising()), step=step)
    rolled = tune(Net().eval(), items(), rising, held=items(1))
    for other in (runs[1], rolled):
        assert bits(other.delta) == bits(runs[0].delta) and bits(other.readout) == bits(runs[0].readout)
        assert other.losses == runs[0].losses
    assert len(step.walks) == 12 and all(walk.length == 0 for walk in step.walks)


@pytest.mark.paper(119, oracle="e")
def test_the_optimiser_does_not_notice() -> None:
    def loss(theta: Tensor) -> Tensor:
        return (theta - 3).square().sum()

    start, memories = torch.zeros(4), []
    for step in (FastForward(), FastForward(longest=1), FastForward(strict=False)):
        _, optimiser = walked(start, loss, step, 0.1, AdamW())
        assert step.walks[0].length >= 1
        memories.append(optimiser.memory())
    assert all(torch.equal(a, b) for other in memories[1:] for a, b in zip(memories[0], other, strict=True))


@pytest.mark.paper(119, oracle="f")
def test_it_takes_less_than_half_of_the_gradients() -> None:
    """LoRA on a noiseless linear teacher, to a loss of 1e-3, ten seeds."""
    for seed in range(10):
        g = torch.Generator().manual_seed(seed)
        net = nn.ModuleDict({"fc1": nn.Linear(8, 6, bias=False)})
        net.forward = lambda x, net=net: net["fc1"](x)  # type: ignore[method-assign, misc]
        with torch.no_grad():
            goal = net["fc1"].weight + 0.5 * torch.randn(6, 2, generator=g) @ torch.randn(2, 8, generator=g)

        class Squared:
            name, separable = "squared", True

            def __init__(self, goal: Tensor) -> None:
                self.goal = goal

            def __call__(self, seen: Seen) -> Tensor:
                return (seen.features - seen.inputs @ self.goal.mT).square().mean()

        def data(n: int, seed: int) -> Data:
            x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
            return Data(x, torch.zeros(n, dtype=torch.long), tuple("abcdef"))

        stage = Stage(steps=400, lr=4e-3, batch=64, rate="constant")
        recipe = Recipe((Placed(LoRA(2, 2.0)),), (Squared(goal),), (stage,))
        needed = []
        for step in (None, FastForward()):
            losses: list[float] = []

            def told(at: int, total: int, loss: float, seconds: float, losses: list[float] = losses) -> None:
                losses.append(loss)
                if loss < 1e-3:
                    raise StopIteration

            held = None if step is None else data(32, 90 + seed)
            with contextlib.suppress(StopIteration):
                tune(net, data(64, 50 + seed), replace(recipe, step=step), held=held, seed=seed, told=told)
            needed.append(len(losses))
        assert needed[1] < needed[0] / 2 and needed[1] < 400, (seed, needed)


def test_a_walk_is_counted_in_passes() -> None:
    class Counting(Net):
        """Counts the items that it reads outside of training."""

        def forward(self, x: Tensor) -> Tensor:
            self.read = getattr(self, "read", 0) + len(x) * (not self.training)
            return super().forward(x)

    step, net = FastForward(interval=3, warmup=4), Counting().eval()
    recipe = Recipe((Placed(Own(), Where(("down",))),), stages=(Stage(steps=11, lr=0.001, batch=8),), readout=Linear)
    tune(net, items(), replace(recipe, step=step), held=items(1, 32))
    assert [walk.step for walk in step.walks] == [7, 10]
    begun = 1  # the readout looks at an item to know how wide features are
    assert step.passes(11, 8, 32) == 3 * 11 * 8 + net.read - begun


def test_the_settings_are_the_papers() -> None:
    recipe = FastForwardLoRA().recipe()
    assert recipe.changes[0].change == LoRA(64, 16.0, 0.1) and recipe.step == FastForward()
    stage = recipe.stages[0]
    assert (stage.lr, stage.batch, stage.epochs, stage.rate, stage.weight_decay) == (2e-5, 512, 5, "constant", 0.0)
    assert stage.update(0.0) == AdamW(1e-6, 0.0)


def test_what_does_not_fit_is_refused() -> None:
    stage = Stage(epochs=4, lr=0.01, batch=8)
    recipe = Recipe((Placed(LoRA(2)),), stages=(stage,), readout=Linear, step=FastForward(interval=2))
    net, data = Net().eval(), items()
    with pytest.raises(BadInput, match="held out: tune"):
        tune(net, data, recipe)
    with pytest.raises(BadInput, match="24 of the 24 held-out examples"):
        tune(net, data, recipe, held=data)
    with pytest.raises(BadInput, match="have 4 classes, the others 3"):
        tune(net, data, recipe, held=Data(torch.randn(4, 6), torch.arange(4)))
    with pytest.raises(BadInput, match="have a class 'c' where the others have '0'; order them alike"):
        tune(net, data, recipe, held=Data(torch.randn(3, 6), torch.arange(3), ("c", "b", "a")))
    with pytest.raises(BadInput, match="interval is at least 2"):
        FastForward(interval=1)

    class Noisy(nn.Module):
        """Drops out even in evaluation."""

        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(6, 8)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(self.fc1(x), 0.5, training=True)

    with pytest.raises(BadInput, match="differs between two looks"):
        tune(Noisy().eval(), data, recipe, held=items(1))
    nan = Data(torch.full((4, 6), float("nan")), torch.arange(4) % 3)
    step = FastForward(interval=2)
    tune(net, data, replace(recipe, step=step), held=nan)
    assert all(walk.length == 0 for walk in step.walks)
