"""ESZSL and SAE: a bilinear compatibility of items and signatures in closed form.

Paper 202: Xian, Lampert, Schiele, Akata, "Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad and the
Ugly", 2017. With X [N, D] the rows, Y [N, C] one-hot, S [C, T] the signatures of seen classes:

    ESZSL  W = (X'X + 10^alpha I)^-1 X'Y S (S'S + 10^gamma I)^-1,   F(x, c) = x'W phi_c
    SAE    A W + W B = (1 + lam) S_y'X,  A = S_y'S_y, B = lam X'X, S_y [N, T] the signature of each row's class
           F(x, c) = cos(W x, phi_c) or cos(x, W' phi_c)

SAE's W [T, D] minimises |S_y' - W X'|^2 + lam |X' - W' S_y'|^2. In the eigenbases of A and B it is a division.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.parameters import finite, one_of
from handful.adapt.signatures import Known, Scaling, SignatureHead
from handful.core.distances import cosine, unit
from handful.core.kernels import Ridge
from handful.core.task import State, Task
from handful.protocols import Needs


@dataclass(eq=False, repr=False, kw_only=True)
class ESZSL(SignatureHead):
    """Items and signatures in a bilinear form, by two ridges at once, in closed form.

    Args:
        alpha: power of ten of the ridge on features (3 serves the paper's data sets, ResNet features as they come).
        gamma: power of ten of the ridge on signatures (0 for AwA; -1 for CUB and aPY, 2 for SUN).
        scaling: of features; the reference has none.
    """

    key: ClassVar[str] = "eszsl"
    needs: ClassVar[Needs] = Needs(text=True)
    shapes: ClassVar[Mapping[str, str]] = {**SignatureHead.shapes, "weight": "D T"}

    alpha: float = 3.0
    gamma: float = 0.0
    scaling: Scaling = "none"

    def learn(self, known: Known) -> State:
        """State: ``weight [*b, D, T]``."""
        ridge, targets = self._ridge(known)
        return {"weight": known.x.mT @ ridge.coefficients() @ targets}

    def compatibility(self, state: State, x: Tensor) -> Tensor:
        """``x'W phi_c``."""
        return x @ state["weight"] @ state["text"].mT

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Closed form: a ridge leaves its rows out. Where a class would go with its last item there is none."""
        if bool((task.fewest_items < 2).any()) or self.scaling == "std":
            return None
        state = self.adapt(task)
        x = torch.where(task.weight[..., None] > 0, self.rows(state, task.x), 0.0)
        s = state["text"]
        ridge, targets = self._ridge(Known(x, task.y, s, task.class_mask, task))
        return ridge.leave_out(task.items) @ targets @ s.mT

    def _ridge(self, known: Known) -> tuple[Ridge, Tensor]:
        """The ridge of the rows onto Y, and what Y is multiplied by, ``S (S'S + 10^gamma I)^-1`` ``[*b, C, T]``."""
        alpha, gamma = finite("alpha", self.alpha, least=-12, most=12), finite("gamma", self.gamma, least=-12, most=12)
        weight = known.y.sum(-1)
        share = known.y / torch.where(weight > 0, weight, 1.0)[..., None]
        strength = torch.full_like(weight[..., 0], 10.0**alpha)
        ridge = Ridge.of(known.x @ known.x.mT, share, weight, strength)
        eye = torch.eye(known.s.shape[-2], dtype=known.s.dtype, device=known.s.device)
        return ridge, torch.linalg.solve(known.s @ known.s.mT + 10.0**gamma * eye, known.s)


@dataclass(eq=False, repr=False, kw_only=True)
class SAE(SignatureHead):
    """Signatures as the code of a linear autoencoder of the features, in closed form.

    Args:
        lam: weight of decoding beside encoding (the reference finds 0.2 for AwA2 and CUB, 0.8 for AwA1, 4 for aPY).
        space: where items and classes are compared: ``"feature"``, classes decoded, or ``"signature"``, items encoded.
        row_normalize: make each attribute's row of W unit before it is used, as the reference does; not in the formula.
        scaling: of features; the reference makes training rows unit, and cosines are blind to the length of others.
    """

    key: ClassVar[str] = "sae"
    needs: ClassVar[Needs] = Needs(text=True)
    shapes: ClassVar[Mapping[str, str]] = {**SignatureHead.shapes, "weight": "T D"}

    lam: float = 0.2
    space: Literal["feature", "signature"] = "feature"
    row_normalize: bool = True
    scaling: Scaling = "unit"

    def learn(self, known: Known) -> State:
        """State: ``weight [*b, T, D]``, as the equation has it."""
        lam = finite("lam", self.lam, above=0)
        one_of("space", self.space, ("feature", "signature"))
        x, y, s = known.x.double(), known.y.double(), known.s.double()  # what is zero in A or B must be told from noise
        a = s.mT @ (y.sum(-2)[..., None] * s)
        b = lam * x.mT @ (y.sum(-1, keepdim=True) * x)
        return {"weight": sylvester(a, b, (1 + lam) * (y @ s).mT @ x).to(known.x.dtype)}

    def compatibility(self, state: State, x: Tensor) -> Tensor:
        """Cosines times ``logit_scale``."""
        w = unit(state["weight"]) if self.row_normalize else state["weight"]
        text = state["text"]
        if self.space == "signature":
            return self.logit_scale * cosine(x @ w.mT, text)
        return self.logit_scale * cosine(x, text @ w)


def sylvester(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``W [*b, T, D]`` with ``A W + W B = C``, A ``[*b, T, T]`` and B ``[*b, D, D]`` symmetric and not negative.

    Where both have an eigenvalue 0, W is 0 in that direction.
    """
    left, u = torch.linalg.eigh(a)
    right, v = torch.linalg.eigh(b)
    total = left.clamp_min(0)[..., :, None] + right.clamp_min(0)[..., None, :]
    least = 1e3 * torch.finfo(c.dtype).eps * total.amax((-2, -1), keepdim=True)
    inside = torch.where(total > least, (u.mT @ c @ v) / total, 0.0)
    w: Tensor = u @ inside @ v.mT
    return w
