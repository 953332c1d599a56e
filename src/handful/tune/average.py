"""Averages of what learns over the steps of a run, which answer in its place: the slot `average` of a recipe.

    EMA     m <- (1 - s) m + s p after each step, s = 1 - decay; with a ramp the decay is min(decay, (1 + t) / (10 + t))

Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; Tarvainen and Valpola, Mean Teachers,
2017. Without a ramp it is `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune.best import states_of


@dataclass(frozen=True)
class EMA:
    """See `handful.tune.average`.

    Args:
        decay: of the average; 0 keeps the newest state.
        ramp: whether it begins smaller, so that short runs are not held at their beginning.
    """

    decay: float = 0.999
    ramp: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise BadInput(f"the decay of an average is 0 to below 1, not {self.decay}")

    def __call__(self, step: int) -> float:
        if self.ramp:
            return 1 - min(self.decay, (1 + step) / (10 + step))
        return 1 - self.decay if step else 1.0


class Averaged(nn.Module):
    """The average of what learns; a module, so that a checkpoint keeps it.

    Args:
        modules: what learns, by name.
    """

    steps: Tensor

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor(0))
        for key, tensor in states_of(modules).items():
            self.register_buffer(key, tensor.detach().clone())

    @torch.no_grad()
    def add(self, share: float, modules: Mapping[str, nn.Module]) -> None:
        """Let the state of ``modules`` be ``share`` of the average; what is no real number is taken as it is."""
        for key, tensor in states_of(modules).items():
            mean = getattr(self, key)
            mean.lerp_(tensor, share) if tensor.is_floating_point() else mean.copy_(tensor)
        self.steps += 1

    @contextmanager
    def in_place(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """``modules`` as the average inside the block, once there were steps; afterwards as they were."""
        was = {key: tensor.detach().clone() for key, tensor in states_of(modules).items()}
        self.write(modules)
        try:
            yield
        finally:
            with torch.no_grad():
                for key, tensor in states_of(modules).items():
                    tensor.copy_(was[key])

    @torch.no_grad()
    def write(self, modules: Mapping[str, nn.Module]) -> None:
        """Make ``modules`` the average, once there were steps."""
        if self.steps:
            for key, tensor in states_of(modules).items():
                tensor.copy_(getattr(self, key))
