"""Modules in training or evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.utils import parametrize


@contextmanager
def in_mode(training: bool, *modules: nn.Module) -> Iterator[None]:
    """All of ``modules`` in one mode inside the block; afterwards each part is in the mode it was in."""
    was = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.train(training)
    try:
        yield
    finally:
        for part, before in was:
            part.training = before


def settled(model: nn.Module) -> list[nn.Module]:
    """Normalisations that keep the statistics of the base: all whose statistics are not changed by a delta."""
    return [
        module
        for module in model.modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
        and not parametrize.is_parametrized(module, "running_mean")
    ]
