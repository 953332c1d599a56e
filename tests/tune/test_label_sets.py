"""Recipes for several labels an item: each label is learnt against its absence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune import Data, Linear, LoRA, Placed, Stage, tune
from handful.tune.fillers import CrossEntropy, EachLabel
from handful.tune.label_sets import for_label_sets
from handful.tune.recipe import Recipe, Seen
from handful.tune.recipes import RECIPES, recipe
from handful.tune.taps import FewLayers

ABLE = {"anchored", "lora-sb", "lorma", "stable", "taps"}


def seen(z: Tensor, targets: Tensor, weight: Tensor) -> Seen:
    rows = torch.arange(len(z))
    return Seen(nn.Identity(), _Given(), rows, z, targets, weight, 0, 1, torch.Generator())


class _Given(Linear):
    def look(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return inputs

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        return features


def test_which_recipes_can() -> None:
    able = []
    for key in RECIPES:
        try:
            for_label_sets(key)
            able.append(key)
        except BadInput as error:
            assert f"recipe {key!r} learns which one class an item is of" in str(error)
            assert all(one in str(error) for one in (*ABLE, "lora:learns=classes"))
    assert set(able) == ABLE
    with pytest.raises(BadInput, match="no recipe 'lorra'"):
        for_label_sets("lorra")


@pytest.mark.parametrize("key", [*sorted(ABLE), "lora:learns=classes", "film:learns=classes,steps=7"])
def test_only_the_objective_is_another(key: str) -> None:
    ours, theirs = for_label_sets(key), recipe(key)
    assert ours.objectives == (EachLabel(), *(o for o in theirs.objectives if isinstance(o, FewLayers)))
    assert ours.changes == theirs.changes and ours.readout is theirs.readout is Linear
    assert [s.steps for s in ours.stages] == [s.steps for s in theirs.stages]


def test_labels_of_a_stage_of_its_own() -> None:
    stage = Stage(steps=1, objectives=(CrossEntropy(0.2),))
    assert stage.objectives[0].each_label() == EachLabel(0.2)  # type: ignore[attr-defined]


def test_the_loss_is_the_mean_over_labels_of_yes_and_no() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(6, 4, generator=g, dtype=torch.double, requires_grad=True)
    t = torch.randint(0, 2, (6, 4), generator=g).double()
    weight = torch.tensor([1.0, 2, 0, 1, 1, 3]).double()
    p = z.sigmoid()
    each = -(t * p.log() + (1 - t) * (1 - p).log()).mean(1)
    loss = EachLabel()(seen(z, t, weight))
    torch.testing.assert_close(loss, (weight * each).sum() / 8)
    # What one label's target is leaves the gradient of the others alone, unlike in cross-entropy.
    other = t.clone()
    other[:, 0] = 1 - other[:, 0]
    a, b = (torch.autograd.grad(EachLabel()(seen(z, y, weight)), z)[0] for y in (t, other))
    torch.testing.assert_close(a[:, 1:], b[:, 1:])
    torch.testing.assert_close(a, weight[:, None] * (p.detach() - t) / 4 / 8)
    smooth = functional.binary_cross_entropy_with_logits(z, 0.9 * t + 0.05)
    torch.testing.assert_close(EachLabel(0.1)(seen(z, t, torch.ones(6).double())), smooth)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fc1, self.fc2 = nn.Linear(6, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.fc2(torch.tanh(self.fc1(x))))


@pytest.fixture
def data() -> Data:
    """Any of three labels, none or all; the third is whether just one of the others is there."""
    bits = torch.cartesian_prod(*[torch.tensor([0, 1])] * 2).repeat(8, 1)
    y = torch.cat([bits, bits.sum(1, keepdim=True) % 2], 1).float()
    x = 0.1 * torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    x[:, :2] += 2 * bits - 1
    return Data(x, y, ("a", "b", "one of them"))


def slots(steps: int = 150) -> Recipe:
    stage = Stage(steps=steps, lr=2e-2, batch=16, rate="constant")
    return Recipe((Placed(LoRA(rank=4)),), (EachLabel(),), (stage,), readout=Linear)


def test_labels_are_learnt_one_by_one(data: Data) -> None:
    tuned = tune(Net().eval(), data, slots())
    assert torch.equal(tuned.logits(data.inputs) > 0, data.targets > 0)  # none of them, one, two
    softmax = tune(Net().eval(), data, replace(slots(), objectives=(CrossEntropy(),)))
    assert not torch.equal(softmax.logits(data.inputs) > 0, data.targets > 0)


def test_a_killed_run_ends_as_it_would_have(data: Data, tmp_path: Path) -> None:
    whole, left = tune(Net().eval(), data, slots(12), seed=3), iter([None] * 5)
    with pytest.raises(StopIteration):
        tune(Net().eval(), data, slots(12), seed=3, checkpoint=tmp_path / "c", every=0, told=lambda *_: next(left))
    again = tune(Net().eval(), data, slots(12), seed=3, checkpoint=tmp_path / "c")
    assert again.losses == whole.losses
    for a, b in zip(again.delta.parameters(), whole.delta.parameters(), strict=True):
        assert torch.equal(a, b)
    left = iter([None] * 5)
    with pytest.raises(StopIteration):
        tune(Net().eval(), data, slots(12), seed=3, checkpoint=tmp_path / "c", every=0, told=lambda *_: next(left))
    moved = Data(data.inputs, data.targets.roll(1, 0), data.classes)
    with pytest.raises(BadInput, match="another run"):
        tune(Net().eval(), moved, slots(12), seed=3, checkpoint=tmp_path / "c")
