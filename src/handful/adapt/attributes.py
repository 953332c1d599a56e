"""DAP and IAP: what an item is like, attribute by attribute, and which class is like that.

Paper 202: Xian, Lampert, Schiele, Akata, "Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad and the
Ugly", 2017. Signatures become yes or no, a_cm = [phi_cm > threshold], and with p(a_m) the share of seen classes that
have attribute m

    logit_c(x) = sum_m log p(a_m = a_cm | x) - log p(a_m = a_cm)

    DAP  p(a_m = 1 | x) = sigmoid(w_m x + b_m), logistic regression, the label of a row being that of its class
    IAP  p(a_m = 1 | x) = sum_k p(k | x) a_km over seen classes k, p(k | x) multinomial logistic regression

An attribute that all seen classes have, or none, has not been learnt and says nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.parameters import finite
from handful.adapt.signatures import Known, SignatureHead
from handful.core.column_regression import fit_columns
from handful.core.softmax_regression import fit_softmax
from handful.core.task import State, lowest
from handful.errors import BadInput
from handful.protocols import Needs

LEAST = 1e-6
"""No attribute is surer than this to be there, or not to be."""


@dataclass(eq=False, repr=False, kw_only=True)
class AttributeHead(SignatureHead):
    """Base of both.

    Args:
        threshold: signatures, which are unit, have an attribute above this: ``"mean"`` of the seen classes, or a
            number; 0 for attributes that are there or not.
        C: inverse strength of the penalty of the logistic regressions.
    """

    needs: ClassVar[Needs] = Needs(text=True, gradient=True)

    threshold: float | Literal["mean"] = "mean"
    C: float = 1.0

    @abstractmethod
    def chances(self, state: State, x: Tensor) -> Tensor:
        """p(a_m = 1 | x) ``[*b, Q, T]``."""

    def _attributes(self, known: Known) -> State:
        """State: ``threshold [*b, T]`` and ``prior [*b, T]``, p(a_m)."""
        finite("C", self.C, above=0)
        n = known.seen.sum(-1)[..., None].clamp_min(1)
        if isinstance(self.threshold, str):
            if self.threshold != "mean":
                raise BadInput(f"threshold is a number or 'mean', not {self.threshold!r}")
            threshold = known.s.sum(-2) / n
        else:
            threshold = torch.full_like(known.s[..., 0, :], finite("threshold", self.threshold))
        a = (known.s > threshold[..., None, :]) & known.seen[..., None]
        return {"threshold": threshold, "prior": a.sum(-2) / n.to(known.s.dtype)}

    def compatibility(self, state: State, x: Tensor) -> Tensor:
        """See the head of this file."""
        prior = state["prior"]
        told = (prior > 0) & (prior < 1)
        prior = torch.where(told, prior, 0.5)[..., None, :]
        p = torch.where(told[..., None, :], self.chances(state, x).clamp(LEAST, 1 - LEAST), 0.5)
        a = (state["text"] > state["threshold"][..., None, :]).to(x.dtype)
        return (p / prior).log() @ a.mT + ((1 - p) / (1 - prior)).log() @ (1 - a).mT


@dataclass(eq=False, repr=False, kw_only=True)
class DAP(AttributeHead):
    """One logistic regression an attribute; the class whose attributes are most likely."""

    key: ClassVar[str] = "dap"
    shapes: ClassVar[Mapping[str, str]] = {
        **SignatureHead.shapes,
        "weight": "T D",
        "bias": "T",
        "threshold": "T",
        "prior": "T",
    }

    def learn(self, known: Known) -> State:
        """State: ``weight [*b, T, D]``, ``bias``, ``threshold``, ``prior`` ``[*b, T]``."""
        state = self._attributes(known)
        a = (known.s > state["threshold"][..., None, :]).to(known.y.dtype)
        told = ((state["prior"] > 0) & (state["prior"] < 1)).to(known.y.dtype)[..., None, :]
        weight, bias = fit_columns(known.x, told * (known.y @ a), told * (known.y @ (1 - a)), self.C)
        return {**state, "weight": weight, "bias": bias}

    def chances(self, state: State, x: Tensor) -> Tensor:
        """``sigmoid(w_m x + b_m)``."""
        return (x @ state["weight"].mT + state["bias"][..., None, :]).sigmoid()


@dataclass(eq=False, repr=False, kw_only=True)
class IAP(AttributeHead):
    """Seen classes first, attributes from them; the class whose attributes are most likely."""

    key: ClassVar[str] = "iap"
    shapes: ClassVar[Mapping[str, str]] = {
        **SignatureHead.shapes,
        "weight": "C D",
        "bias": "C",
        "has": "C T",
        "threshold": "T",
        "prior": "T",
    }

    def learn(self, known: Known) -> State:
        """State: ``weight [*b, C, D]``, ``bias [*b, C]``, attributes of seen classes ``has [*b, C, T]``,
        ``threshold``, ``prior`` ``[*b, T]``."""
        state = self._attributes(known)
        has = (known.s > state["threshold"][..., None, :]) & known.seen[..., None]
        return {**state, **seen_posterior(known, self.C), "has": has.to(known.s.dtype)}

    def chances(self, state: State, x: Tensor) -> Tensor:
        """``sum_k p(k | x) a_km``."""
        return posterior(state, x) @ state["has"]


def seen_posterior(known: Known, c: float) -> State:
    """``weight [*b, C, D]`` and ``bias [*b, C]`` of multinomial logistic regression over the seen classes."""
    weight, bias = fit_softmax(known.x, known.y, known.seen, c)
    return {"weight": weight, "bias": torch.where(known.seen, bias, lowest(bias))}


def posterior(state: State, x: Tensor) -> Tensor:
    """p(k | x) ``[*b, Q, C]`` over the seen classes."""
    return (x @ state["weight"].mT + state["bias"][..., None, :]).softmax(-1)
