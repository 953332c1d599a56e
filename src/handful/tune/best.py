"""The best state of a run by a score, such as accuracy on examples held out: what few-shot protocols call dev-best."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Best(nn.Module):
    """Copies of what learns, as they were when the score was highest; the first of equal scores stays.

    It is a module, so that a checkpoint keeps it.

    Args:
        modules: what learns, by name.
    """

    score: Tensor
    waited: Tensor

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.register_buffer("score", torch.tensor(float("-inf"), dtype=torch.float64))
        self.register_buffer("waited", torch.tensor(0))
        for key, tensor in states_of(modules).items():
            self.register_buffer(key, tensor.detach().clone())

    @torch.no_grad()
    def offer(self, score: float, modules: Mapping[str, nn.Module]) -> None:
        """Keep ``modules`` as they are now, if ``score`` is above every one before; else count how long none was."""
        self.waited += 1
        if score > float(self.score):
            self.score.fill_(score)
            self.waited.zero_()
            for key, tensor in states_of(modules).items():
                getattr(self, key).copy_(tensor)

    @torch.no_grad()
    def restore(self, modules: Mapping[str, nn.Module]) -> None:
        """Make ``modules`` what they were at the best score."""
        for key, tensor in states_of(modules).items():
            tensor.copy_(getattr(self, key))


def states_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Every tensor by a name without dots, as a buffer has it."""
    return {
        f"{name}/{key}".replace(".", "/"): tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
