"""Averages of what learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune import EMA, Data, Linear, LoRA, Masked, Placed, Recipe, Stage, Tuned, tune


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))  # type: ignore[no-any-return]


@pytest.fixture
def net() -> nn.Module:
    return Net().eval()


@pytest.fixture
def data() -> Data:
    labels = torch.arange(24) % 3
    return Data(torch.randn(24, 6, generator=torch.Generator().manual_seed(0)) + 2 * torch.eye(6)[labels], labels)


def states(tuned: Tuned) -> list[Tensor]:
    return [t.detach().clone() for m in (tuned.delta, tuned.readout) for t in m.state_dict().values()]


def recipe(steps: int, average: EMA | None = None, lr: float = 0.05) -> Recipe:
    changes = (Placed(LoRA(rank=2)), Placed(Masked(3)))
    return Recipe(changes, stages=(Stage(steps=steps, lr=lr, rate="constant"),), readout=Linear, average=average)


@pytest.mark.parametrize("ramp", [False, True])
def test_it_is_the_mean_of_the_states_after_each_step(net: nn.Module, data: Data, ramp: bool) -> None:
    """Against torch's own average of a module that holds them, and the formula with a ramp."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    every = [states(tune(net, data, recipe(steps))) for steps in range(1, 8)]
    held = nn.ParameterList(nn.Parameter(t.float(), requires_grad=False) for t in every[0])
    theirs = AveragedModel(held, multi_avg_fn=get_ema_multi_avg_fn(0.7))
    mean = [t.float() for t in states(tune(net, data, recipe(0)))]
    for step, now in enumerate(every):
        share = 1 - min(0.7, (1 + step) / (10 + step))
        mean = [torch.lerp(m, t.float(), share) for m, t in zip(mean, now, strict=True)]
        for mine, t in zip(held, now, strict=True):
            mine.copy_(t)
        theirs.update_parameters(held)
    found = states(tune(net, data, recipe(7, EMA(0.7, ramp))))
    expected = mean if ramp else [p.detach() for p in theirs.parameters()]
    for mine, other in zip(found, expected, strict=True):
        if mine.is_floating_point():
            torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)
    last = [t for t in every[-1] if t.is_floating_point()]
    assert (
        max(float((a - b).abs().max()) for a, b in zip(last, [t for t in found if t.is_floating_point()], strict=True))
        > 1e-3
    )


def test_without_memory_it_is_the_last_state(net: nn.Module, data: Data) -> None:
    plain, averaged = (tune(net, data, recipe(6, average)) for average in (None, EMA(0.0)))
    assert plain.losses == averaged.losses
    assert all(torch.equal(a, b) for a, b in zip(states(plain), states(averaged), strict=True))


def test_averages_are_judged_and_training_goes_on_as_it_was(net: nn.Module, data: Data) -> None:
    seen: list[list[Tensor]] = []

    def judge(now: Tuned) -> float:
        seen.append(states(now))
        return float(len(seen) == 2)  # the state after four steps is kept

    kept = tune(net, data, recipe(6, EMA(0.7)), judge=judge, judge_every=2)
    assert kept.losses == tune(net, data, recipe(6)).losses
    for steps, there in zip((2, 4, 6), seen, strict=True):
        alone = states(tune(net, data, recipe(steps, EMA(0.7))))
        assert all(torch.equal(a, b) for a, b in zip(alone, there, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(states(kept), seen[1], strict=True))


def test_a_killed_run_ends_as_it_would_have(net: nn.Module, data: Data, tmp_path: Path) -> None:
    left = 4

    def stop(*_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt

    whole, file = tune(net, data, recipe(7, EMA(0.7))), tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        tune(net, data, recipe(7, EMA(0.7)), checkpoint=file, every=0, told=stop)
    with pytest.raises(BadInput, match="another run"):
        tune(net, data, recipe(7, EMA(0.8)), checkpoint=file)
    again = tune(net, data, recipe(7, EMA(0.7)), checkpoint=file)
    assert all(torch.equal(a, b) for a, b in zip(states(whole), states(again), strict=True))


def test_a_decay_that_is_none_is_refused() -> None:
    for decay in (1.0, -0.1):
        with pytest.raises(BadInput, match="0 to below 1"):
            EMA(decay)
