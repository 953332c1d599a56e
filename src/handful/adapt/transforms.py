"""Transforms of frozen features, each a scikit-learn transformer around tensor functions.

    Unit          z = x / |x|
    Center        z = x - m,  m the mean of the support (or of base features)
    Power         z = (x + eps)^beta, log(x + eps) for beta = 0                  paper 042 (PT-MAP, 2021), step 1
    ChannelPower  z = 1 / ln(1/x + 1)^k                                         paper 019 (Channel Importance, 2022),
    eq. 3 letters       "ME", "PEME", …: paper 008 (EASY, 2022): M centre, E unit, R relu, P square root

What is learnt (means) is learnt from the rows ``fit`` sees. Fitted on base features and frozen, a chain puts base means
into a pipeline: ``make_pipeline(FrozenEstimator(Chain.letters("ME").fit(base)), Prototypes())`` is paper 008's
classifier, and with ``Chain(steps=(Power(), Unit(), Center()))`` the inductive form of paper 042. Paper 019 has
``ChannelPower`` before ``Unit`` with the nearest cosine, and after it with logistic regression.
"""

from __future__ import annotations

import itertools
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from handful.adapt.inputs import read_rows, to_tensor
from handful.adapt.parameters import finite
from handful.core.distances import unit
from handful.core.lowrank import row_space
from handful.core.task import State
from handful.errors import BadInput


@dataclass(eq=False, repr=False, kw_only=True)
class Transform(TransformerMixin, BaseEstimator):
    """Base of every transform: ``learn`` from rows, ``apply`` to rows, both with leading batch dimensions."""

    def learn(self, x: Tensor, weight: Tensor) -> State:
        """What has to be known of the rows ``x [*b, N, D]`` with weights ``[*b, N]``."""
        return {}

    @abstractmethod
    def apply(self, state: State, x: Tensor) -> Tensor:
        """The transformed rows ``[*b, Q, D]``."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from an array ``[n, d]``; ``y`` is ignored."""
        x = to_tensor(read_rows(self, X, reset=True, directions=False)[0], "cpu")
        state = self.learn(x, torch.ones(len(x), dtype=x.dtype))
        self.apply(state, x)  # refuses now what it would refuse later
        self.state_ = state
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The transformed array ``[n, d]``."""
        check_is_fitted(self)
        x = to_tensor(read_rows(self, X, reset=False, directions=False)[0], "cpu")
        out: np.ndarray = self.apply(self.state_, x).numpy()
        return out

    @property
    def positive_only(self) -> bool:
        """Whether negative features are refused."""
        return False

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.positive_only
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "state_")


@dataclass(eq=False, repr=False, kw_only=True)
class Unit(Transform):
    """Rows of Euclidean length 1; a zero row stays zero."""

    def apply(self, state: State, x: Tensor) -> Tensor:
        """``x / |x|``."""
        return unit(x)


@dataclass(eq=False, repr=False, kw_only=True)
class Center(Transform):
    """Subtract the mean of the rows learnt from (the support; fitted on base features, the base mean)."""

    def learn(self, x: Tensor, weight: Tensor) -> State:
        """State: ``mean [*b, D]``."""
        total = weight.sum(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        return {"mean": (weight[..., None] * x).sum(-2) / total}

    def apply(self, state: State, x: Tensor) -> Tensor:
        """``x - mean``."""
        return x - state["mean"][..., None, :]


def refuse_negative(x: Tensor, cure: str) -> None:
    """Raise `BadInput` naming the first negative feature of ``x``, and the cure."""
    if x.numel() and float(x.min()) < 0:
        place = tuple(int(i) for i in (x < 0).nonzero()[0])
        raise BadInput(f"Negative values in data: feature {place} is {float(x[place]):.3g}; {cure}")


@dataclass(eq=False, repr=False, kw_only=True)
class Power(Transform):
    """``(x + eps)^beta``; ``log(x + eps)`` for beta 0.

    Args:
        beta: 0.5 in the reference.
        eps: 1e-6 in the reference.
        signed: ``sign(x) |x|^beta`` (our extension) for features that can be negative; otherwise those are refused.
    """

    beta: float = 0.5
    eps: float = 1e-6
    signed: bool = False

    @property
    def positive_only(self) -> bool:
        """Unless ``signed``."""
        return not self.signed

    def apply(self, state: State, x: Tensor) -> Tensor:
        """Raises `BadInput` naming the first negative feature unless ``signed``, and for a power that makes no
        sense.
        """
        return self.apply_(x.clone())

    def apply_(self, x: Tensor) -> Tensor:
        """`apply`, in the memory of ``x``."""
        finite("beta", self.beta, least=0)
        finite("eps", self.eps, least=0)
        if self.beta == 0 and (self.signed or self.eps == 0):
            raise BadInput("the logarithm (beta=0) is for features that are not negative, with eps above 0")
        if self.signed:
            sign = x.sign()
            return x.abs_().pow_(self.beta).mul_(sign)
        refuse_negative(x, "give signed=True")
        return x.add_(self.eps).log_() if self.beta == 0 else x.add_(self.eps).pow_(self.beta)


@dataclass(eq=False, repr=False, kw_only=True)
class SquareRoot(Transform):
    """``sqrt(x)``, EASY's letter P."""

    @property
    def positive_only(self) -> bool:
        """Roots of negative numbers are refused."""
        return True

    def apply(self, state: State, x: Tensor) -> Tensor:
        """Raises `BadInput` naming the first negative feature."""
        refuse_negative(x, "put R (relu) before P")
        return x.sqrt()


@dataclass(eq=False, repr=False, kw_only=True)
class Relu(Transform):
    """``max(x, 0)``, EASY's letter R."""

    def apply(self, state: State, x: Tensor) -> Tensor:
        """``max(x, 0)``."""
        return x.clamp_min(0)


@dataclass(eq=False, repr=False, kw_only=True)
class ChannelPower(Transform):
    """Lift channels of small magnitude, hold back large ones: ``1 / ln(1/x + 1)^k``, 0 at 0.

    Args:
        k: 1.3 in the paper.
        signed: the authors' code instead of the formula: ``phi(max(x, 0) + 1e-5) - phi(max(-x, 0) + 1e-5)``, defined
            for all features; on non-negative ones it lies 0.0417 below the formula.
    """

    k: float = 1.3
    signed: bool = True
    eps: ClassVar[float] = 1e-5

    @property
    def positive_only(self) -> bool:
        """Unless ``signed``."""
        return not self.signed

    def learn(self, x: Tensor, weight: Tensor) -> State:
        """Nothing; warns where features were centred before: magnitudes then no longer say which channels are large."""
        if bool((x.mean(-2).norm(dim=-1) < 1e-3 * x.norm(dim=-1).mean(-1)).all()) and x.shape[-2] > 1:
            warnings.warn(
                "the features are centred; ChannelPower is meant for features as the encoder gives them", stacklevel=3
            )
        return {}

    def _phi(self, x: Tensor) -> Tensor:
        return (1 / x).log1p() ** -self.k  # log(1/x + 1) loses the digits of a large x

    def apply(self, state: State, x: Tensor) -> Tensor:
        """Raises `BadInput` for k <= 0, and for negative features unless ``signed``."""
        finite("k", self.k, above=0)
        if self.signed:
            return self._phi(x.clamp_min(0) + self.eps) - self._phi((-x).clamp_min(0) + self.eps)
        refuse_negative(x, "give signed=True")
        return torch.where(x > 0, self._phi(torch.where(x > 0, x, 1.0)), 0.0)


@dataclass(eq=False, repr=False, kw_only=True)
class Chain(Transform):
    """Several transforms, one after the other."""

    steps: Sequence[Transform] = ()

    @property
    def positive_only(self) -> bool:
        """Whether a step refuses negative features before another has clipped them."""
        before = itertools.takewhile(lambda step: not isinstance(step, Relu), self.steps)
        return any(step.positive_only for step in before)

    @classmethod
    def letters(cls, letters: str) -> Chain:
        """EASY's notation: the order of the letters is the order of the operations.

        Raises:
            BadInput: another letter, or no text at all.
        """
        if not isinstance(letters, str):
            raise BadInput(f"letters are text such as 'ME', not {letters!r}")
        known: dict[str, type[Transform]] = {"M": Center, "E": Unit, "R": Relu, "P": SquareRoot}
        wrong = [letter for letter in letters if letter not in known]
        if wrong:
            raise BadInput(f"unknown letter {wrong[0]!r}: M centre, E unit, R relu, P square root")
        return cls(steps=tuple(known[letter]() for letter in letters))

    def learn(self, x: Tensor, weight: Tensor) -> State:
        """Every step learns from what the steps before it give; names carry the step's position."""
        state: State = {}
        for i, step in enumerate(self.steps):
            own = step.learn(x, weight)
            x = step.apply(own, x)
            state |= {f"{i}.{name}": value for name, value in own.items()}
        return state

    def apply(self, state: State, x: Tensor) -> Tensor:
        """All steps in order."""
        for i, step in enumerate(self.steps):
            own = {name.removeprefix(f"{i}."): value for name, value in state.items() if name.startswith(f"{i}.")}
            x = step.apply(own, x)
        return x


def lossless(*parts: Tensor) -> tuple[Tensor, ...]:
    """Several sets of rows ``[*b, N_i, D]`` in coordinates of their joint span ``[*b, N_i, r]`` (paper 042, step 2).

    r = min(sum of N_i, D); every inner product stays, so methods that look only at those are merely faster.
    """
    rows, _ = row_space(torch.cat(parts, -2))
    return torch.split(rows, [part.shape[-2] for part in parts], -2)
