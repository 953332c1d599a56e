"""Chains of recipes, and Chain of LoRA (138)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handful.core.train import AdamW
from handful.errors import BadInput
from handful.tune import (
    Adapter,
    CrossEntropy,
    Data,
    Delta,
    Linear,
    LoRA,
    Own,
    Placed,
    Readout,
    Recipe,
    Seen,
    Stage,
    Tuned,
    Where,
    load_delta,
    save_delta,
    tune,
)
from handful.tune.fillers import Plain
from handful.tune.pace import rate_at
from handful.tune.sequence import ChainOfLoRA, ranks, sequence


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))  # type: ignore[no-any-return]


@pytest.fixture
def net() -> Net:
    return Net().eval()


@pytest.fixture
def data() -> Data:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    return Data(torch.randn(24, 6, generator=g) + 2 * torch.eye(6)[labels], labels)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


CHAIN = ChainOfLoRA(links=3, rank=2, dropout=0.0, lr=0.02, epochs=9, batch=8, roles=("up", "down"))


@pytest.mark.paper(138, oracle="a")
def test_one_link_is_plain_lora(net: Net, data: Data) -> None:
    chain = ChainOfLoRA(links=1, rank=2, epochs=4, roles=("up", "down"))
    (recipe,) = chain.recipes(data)
    mine, plain = chain.fit(net, data, seed=5), tune(net, data, recipe, seed=5)
    assert mine.losses == plain.losses
    assert bits(mine.delta) == bits(plain.delta) and bits(mine.readout) == bits(plain.readout)


@dataclass
class Exactly:
    """The best of its rank for what is left between a weight and the goal: a link solved exactly."""

    goal: Tensor

    def __call__(
        self, delta: Delta, model: nn.Module, readout: Readout, data: Data, loss: Callable[[Any], Tensor]
    ) -> None:
        (h,) = delta.holders
        u, s, vt = torch.linalg.svd(self.goal - model.get_submodule(h.site).weight.detach())
        r = h.change.rank
        h.B.data, h.A.data = u[:, :r] * s[:r] / h.change.scale, vt[:r]


@pytest.mark.paper(138, oracle="b")
@pytest.mark.parametrize("rank", [1, 2])
def test_links_that_are_exact_are_the_truncated_decomposition(rank: int) -> None:
    g = torch.Generator().manual_seed(2)
    net, goal = nn.ModuleDict({"fc1": nn.Linear(7, 8)}).double(), torch.randn(8, 7, generator=g, dtype=torch.float64)
    net.forward = lambda x: net["fc1"](x)  # type: ignore[method-assign]
    data = Data(torch.randn(4, 7, dtype=torch.float64), torch.arange(4) % 2, tuple("abcdefgh"))
    u, s, vt = torch.linalg.svd(goal - net["fc1"].weight.detach())
    one = Recipe((Placed(LoRA(rank)),), stages=(Stage(steps=1, lr=0.0),), start=Exactly(goal))
    for links in (1, 2, 3):
        many = rank * links
        delta = sequence(net, data, [one] * links).delta
        kept = delta.merge(net)
        left = goal - net["fc1"].weight
        kept.undo()
        torch.testing.assert_close(left, (u[:, many:7] * s[many:]) @ vt[many:], atol=1e-12, rtol=0)
        assert set(ranks(delta, net).values()) == {many}


@pytest.mark.paper(138, oracle="c")
def test_ranks_are_those_of_weights(net: Net, data: Data) -> None:
    changes = (Placed(LoRA(2), Where(names="fc1")), Placed(Own(), Where(names="fc1", parameter="bias")))
    tuned = tune(net, data, Recipe(changes, stages=(Stage(steps=3, lr=0.02),), readout=Linear))
    assert ranks(tuned.delta, net) == {"fc1": 2}


def test_the_rank_is_at_most_the_sum(net: Net, data: Data) -> None:
    tuned = ChainOfLoRA(links=2, rank=(2, 1), lr=0.02, epochs=8, roles=("up", "down")).fit(net, data)
    assert ranks(tuned.delta, net) == {"fc1": 3, "fc2": 3}
    assert [h.change.rank for h in tuned.delta.holders] == [2, 2, 1, 1]


@pytest.mark.paper(138, oracle="d")
def test_a_knot_changes_no_loss(net: Net, data: Data) -> None:
    """The last loss of a link, after its last step, is the first of the next."""
    ends: list[float] = []

    def told(number: int, link: Tuned) -> None:
        logits = link.logits(data.inputs)
        ends.append(float(-(data.targets * logits.log_softmax(1)).sum(1).mean()))

    was = bits(net)
    chain = ChainOfLoRA(links=3, rank=2, dropout=0.0, lr=0.05, epochs=12, batch=24, warmup=0.0, roles=("up", "down"))
    tuned = sequence(net, data, chain.recipes(data), told=told)
    assert bits(net) == was
    assert [tuned.losses[4], tuned.losses[8]] == pytest.approx(ends[:2], abs=1e-5)
    assert ends[2] < ends[0] - 0.1
    logits = tuned.logits(data.inputs)
    assert float(CrossEntropy()(_seen(data, logits))) == pytest.approx(ends[2], abs=1e-5)
    torch.testing.assert_close(tuned.logits(data.inputs, mode="weight"), logits, atol=1e-5, rtol=0)


def _seen(data: Data, logits: Tensor) -> Seen:
    rows, weight = torch.arange(len(data)), torch.ones(len(data))
    seen = Seen(nn.Identity(), Plain(), rows, data.inputs, data.targets, weight, 0, 1, torch.Generator())
    seen.__dict__["logits"] = logits
    return seen


@pytest.mark.paper(138, oracle="e")
def test_every_link_has_a_new_optimiser(net: Net, data: Data) -> None:
    made: list[AdamW] = []
    empty: list[bool] = []

    @dataclass
    class Watched(AdamW):
        seen: bool = field(default=False)

        def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
            if not self.seen:
                empty.append(not self.memory())
                self.seen = True
            super().__call__(parameters, gradients, rate)

    def update(decay: float) -> AdamW:
        made.append(Watched(weight_decay=decay))
        return made[-1]

    stage = Stage(steps=3, update=update)
    one = Recipe((Placed(LoRA(2)),), stages=(stage,), readout=Linear)
    sequence(net, data, [one, one])
    assert len(made) == 2 * 2  # delta and readout, two links
    assert all(empty) and all(int(update.memory()[0]) == 3 for update in made if update.memory())


@pytest.mark.paper(138, oracle="f")
def test_a_chain_goes_below_what_its_rank_allows() -> None:
    """Linear regression, a teacher six ranks away: rank 2 stops at the tail of the squared singular values."""
    g = torch.Generator().manual_seed(3)
    gap = torch.linalg.qr(torch.randn(10, 6, generator=g))[0] @ torch.linalg.qr(torch.randn(10, 6, generator=g))[0].mT
    net = nn.ModuleDict({"fc1": nn.Linear(10, 10, bias=False)})
    net.forward = lambda x: net["fc1"](x)  # type: ignore[method-assign]
    with torch.no_grad():
        goal = net["fc1"].weight + gap
    x = torch.linalg.qr(torch.randn(40, 10, generator=g))[0]
    data = Data(x, torch.zeros(40, dtype=torch.long), ("a",))

    class Squared:
        name, separable = "squared", True

        def __call__(self, seen: Seen) -> Tensor:
            return (seen.features - seen.inputs @ goal.mT).square().sum()

    stage = Stage(steps=150, lr=0.05, batch=40)
    one = Recipe((Placed(LoRA(2, 2.0)),), (Squared(),), (stage,))
    plain, chain = tune(net, data, one), sequence(net, data, [one] * 3)
    floor = float(torch.linalg.svdvals(gap)[2:].square().sum())  # 4
    assert plain.losses[-1] == pytest.approx(floor, rel=0.02)
    assert chain.losses[-1] < 0.1 * plain.losses[-1]


@pytest.mark.paper(138, oracle="g")
def test_no_more_than_one_link_learns_at_a_time(net: Net, data: Data) -> None:
    learning: list[int] = []
    tuned = sequence(net, data, CHAIN.recipes(data), told=lambda _, link: learning.append(link.delta.trainable()))
    one = 2 * (6 + 8) + 2 * (8 + 5)
    assert learning == [one] * 3 and tuned.delta.trainable() == 3 * one


def test_links_are_kept_apart_in_a_file(net: Net, data: Data, tmp_path: Any) -> None:
    tuned = CHAIN.fit(net, data)
    save_delta(tuned.delta, tmp_path / "d")
    again = load_delta(tmp_path / "d", net)
    assert bits(again) == bits(tuned.delta)


def test_a_sum_is_rounded_once(net: Net, data: Data) -> None:
    half = copy.deepcopy(net).bfloat16()
    tuned = CHAIN.fit(net, data)
    deltas = Delta([h for h in tuned.delta.holders if h.site == "fc1"], "")
    deltas.fingerprint = Delta.joined(half, [deltas]).fingerprint
    wide = half.fc1.weight.float()
    for h in deltas.holders:
        wide = h.change.weight(wide, h.tensors)
    deltas.merge(half)
    assert torch.equal(half.fc1.weight, wide.bfloat16())


def test_schedules_begin_anew_or_go_on(data: Data) -> None:
    def rates(chain: ChainOfLoRA) -> list[float]:
        stages = [recipe.stages[0] for recipe in chain.recipes(data)]
        return [rate_at(stage, stage.steps or 0, at) for stage in stages for at in range(stage.steps or 0)]

    whole = Stage(steps=30, lr=0.01, warmup=0.1)
    chain = ChainOfLoRA(links=3, epochs=10, batch=8, lr=0.01, warmup=0.1, schedule="global")
    assert rates(chain) == pytest.approx([rate_at(whole, 30, at) for at in range(30)])
    link = Stage(steps=10, lr=0.01, warmup=0.1)
    anew = ChainOfLoRA(links=3, epochs=10, batch=8, lr=0.01, warmup=0.1)
    assert rates(anew) == pytest.approx([rate_at(link, 10, at) for at in range(10)] * 3)


def test_a_readout_goes_on_as_what_it_is(net: Net, data: Data) -> None:
    """It looks at the model in its own way, and objectives that belong to it find it."""

    class Doubled(Linear):
        def look(self, model: nn.Module, inputs: Any) -> Any:
            return 2 * model(inputs)

    class Belonging:
        name, separable = "belonging", True

        def __call__(self, seen: Seen) -> Tensor:
            seen.read_by(Doubled)
            return CrossEntropy()(seen)

    one = Recipe((Placed(LoRA(2)),), (Belonging(),), (Stage(steps=3, lr=0.05, batch=24),), readout=Doubled)
    ends: list[float] = []

    def told(number: int, link: Tuned) -> None:
        ends.append(float(CrossEntropy()(_seen(data, link.logits(data.inputs)))))

    tuned = sequence(net, data, [one, one], told=told)
    assert type(tuned.readout) is Doubled
    assert tuned.losses[3] == pytest.approx(ends[0], abs=1e-5)


def test_a_link_ends_once_the_loss_no_longer_falls(net: Net, data: Data) -> None:
    """At a rate of 0 the loss stands still: a stage ends after twice its patience."""
    stage = Stage(steps=50, lr=0.0, batch=24, patience=4)
    assert len(tune(net, data, Recipe((Placed(LoRA(2)),), stages=(stage,), readout=Linear)).losses) == 8
    falling = Stage(steps=20, lr=0.01, batch=24, patience=4)
    assert len(tune(net, data, Recipe((Placed(LoRA(2)),), stages=(falling,), readout=Linear)).losses) == 20


@pytest.mark.parametrize("after", [3, 8, 11])
def test_a_stage_is_left_out_where_the_loss_before_it_is_low(net: Net, data: Data, tmp_path: Path, after: int) -> None:
    first = Stage(steps=8, lr=0.02, batch=24, above=9.0)  # nothing stands before it
    ends = float(np.mean(tune(net, data, Recipe((Placed(LoRA(2)),), stages=(first,), readout=Linear)).losses[-4:]))
    left_out, taken = (Stage(steps=5, lr=0.01, batch=24, above=above) for above in (ends + 1e-3, ends - 1e-3))
    recipe, told = Recipe((Placed(LoRA(2)),), stages=(first, left_out, taken), readout=Linear), []
    whole = tune(net, data, recipe, progress=lambda done, of: told.append((done, of)))
    assert len(whole.losses) == 13 and told[7:9] == [(8, 18), (14, 18)] and told[-1] == (18, 18)

    def stop(done: int, *_: float) -> None:
        if done >= told[after - 1][0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(net, data, recipe, checkpoint=tmp_path / "c", every=0, told=stop)
    again = tune(net, data, recipe, checkpoint=tmp_path / "c")
    assert again.losses == whole.losses and bits(again.delta) == bits(whole.delta)


def test_what_does_not_fit_is_refused(net: Net, data: Data) -> None:
    with pytest.raises(BadInput, match="0 links is none"):
        ChainOfLoRA(links=0)
    with pytest.raises(BadInput, match="2 ranks for 3 links"):
        ChainOfLoRA(rank=(2, 1))
    with pytest.raises(BadInput, match="15 steps are not enough for 16 links"):
        ChainOfLoRA(links=16).recipes(data)
    with pytest.raises(BadInput, match="longer than the first link"):
        ChainOfLoRA(links=3, warmup=0.5, schedule="global").recipes(data)
    with pytest.raises(BadInput, match="longer than the first link"):
        ChainOfLoRA(links=1, warmup=1.0, schedule="global").recipes(data)
    with pytest.raises(BadInput, match="at least one link"):
        sequence(net, data, [])
    was = bits(net)
    one = Recipe((Placed(Adapter(width=2)),), stages=(Stage(steps=1),), readout=Linear)
    ended: list[int] = []
    with pytest.raises(BadInput, match="no weight form"):
        sequence(net, data, [one, one], told=lambda number, link: ended.append(number))
    assert not ended  # before anything is learnt
    assert bits(net) == was
    with pytest.raises(BadInput, match="patience is 0"):
        Stage(steps=1, patience=0)
    with pytest.raises(BadInput, match="above is a loss"):
        Stage(steps=1, above=-0.1)
