"""What can happen to a weight, or to what a module gives: the protocol of everything that is placed at a site.

A change has one set of tensors and up to two executions:

    weight   W -> f(W), as ``torch.nn.utils.parametrize`` has it; what merging writes
    branch   y -> y', from what went into the module and what came out; the usual one in training

Both must agree; a test compares them for each. Changes of activations (adapters, prompts) have the second only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from handful.errors import BadInput, nearest

Mode = Literal["branch", "weight"]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Begun:
    """The tensors of one change at one site.

    Args:
        trained: what learns.
        fixed: what is stored beside it and does not.
    """

    trained: dict[str, Tensor]
    fixed: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Change(ABC):
    """One kind of change, with its settings; a dataclass whose fields are JSON-able. See `handful.tune.change`.

    Attributes:
        key: its name in files.
        modes: the executions it has.
        biased: whether it changes the module's bias along with the weight.
        reads: whether its branch reads the module's own weight or bias, so that what stands before it at the same
            site must be in them.
        shared: names of trained tensors that all places with an equal change have in common.
    """

    key: ClassVar[str]
    modes: ClassVar[frozenset[Mode]] = frozenset({"branch", "weight"})
    biased: ClassVar[bool] = False
    reads: ClassVar[bool] = False
    shared: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        """Its tensors for a weight ``[out, in]`` (or a vector), which change nothing yet unless the method says so.

        Raises:
            BadInput: its settings do not fit that weight.
        """

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        """``f(W)`` in the shape of ``w``."""
        raise BadInput(f"{self.key!r} changes what a module gives, not its weight: it cannot be merged")

    def weight_in_training(self, w: Tensor, t: Tensors) -> Tensor:
        """What training has in place of `weight`, where the two differ: what is drawn is drawn here."""
        return self.weight(w, t)

    def bias(self, b: Tensor, t: Tensors) -> Tensor:
        """The bias ``[out]`` that goes with ``f(W)``; as it was unless ``biased``."""
        return b

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        """What the module gives instead of ``y [..., out]`` for ``x [..., in]``."""
        raise BadInput(f"{self.key!r} has no branch form: attach it with mode='weight'")

    def idle(self, t: Tensors) -> bool:
        """Whether it leaves what it is placed at as it is, so that none of its tensors need be stored."""
        return False

    def check(self, mode: Mode, training: bool) -> None:
        """Raise `BadInput` where an execution would not do what the settings say."""
        if mode not in self.modes:
            raise BadInput(f"{self.key!r} has no {mode} form; it has {', '.join(sorted(self.modes))}")

    def settings(self) -> dict[str, Any]:
        """Its fields, JSON-able."""
        return asdict(self)


CHANGES: dict[str, type[Change]] = {}
"""By key, the kinds that a file may name."""


def register(kind: type[Change]) -> type[Change]:
    """Make a kind of change known to files; a decorator."""
    if CHANGES.setdefault(kind.key, kind) is not kind:
        raise ValueError(f"two kinds of change are called {kind.key!r}")
    return kind


def change_of(key: str, settings: Mapping[str, Any]) -> Change:
    """The change with these settings. Raises `BadInput` for what is not known."""
    if key not in CHANGES:
        raise BadInput(f"there is no change {key!r}{nearest(str(key), CHANGES)}")
    kind = CHANGES[key]
    unknown = sorted(set(settings) - {f.name for f in fields(kind)})
    if unknown:
        raise BadInput(f"change {key!r} has no setting {unknown[0]!r}")
    listed = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    return kind(**listed)


def checked_rank(rank: int, weight: Tensor) -> None:
    """Raise `BadInput` for a rank that no matrix of that shape has."""
    if weight.dim() != 2:
        raise BadInput(f"a low-rank change needs a matrix, not a tensor of shape {tuple(weight.shape)}")
    if not 1 <= rank <= min(weight.shape):
        raise BadInput(
            f"rank {rank} does not fit a weight of shape {tuple(weight.shape)}; it is 1 to {min(weight.shape)}"
        )
