"""Adafactor is that of `transformers`."""

from __future__ import annotations

import pytest
import torch

from handful.core.adafactor import Adafactor


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_transformers(decay: float) -> None:
    from transformers import Adafactor as Theirs

    g = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=g) for shape in ((4, 3), (5,), (2, 3, 4))] + [torch.zeros(3, 2)]
    ours = [p.clone() for p in start]
    theirs = [torch.nn.Parameter(p.clone()) for p in start]
    update = Adafactor(decay)
    rule = Theirs(theirs, lr=0.05, scale_parameter=True, relative_step=False, warmup_init=False, weight_decay=decay)
    for step in range(7):
        gradients = tuple(torch.randn(p.shape, generator=g) * 10 ** (step % 3) for p in start)
        if step == 4:  # what is remembered is enough to go on from
            memory = [x.clone() for x in update.memory()]
            update = Adafactor(decay)
            update.recall(memory)
        update(ours, gradients, 0.05)
        for p, grad in zip(theirs, gradients, strict=True):
            p.grad = grad.clone()
        rule.step()
        for mine, their in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, their.data, atol=1e-5, rtol=1e-5)
