"""GFZSL: classes are Gaussians whose mean and variances are predicted from their signatures.

Paper 202: Xian, Lampert, Schiele, Akata, "Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad and the
Ugly", 2017. With mu_k and log sigma_k^2 of each seen class estimated from its examples, K the kernel of their
signatures:

    mu(phi) = k(phi) (K + ridge I)^-1 M,   log sigma^2(phi) = m + k(phi) (K + ridge I)^-1 (L - m)
    logit_c(x) = -1/2 sum_d log sigma_cd^2 + (x_d - mu_cd)^2 / sigma_cd^2

with M and L the rows mu_k and log sigma_k^2, m the mean of L: a ridge pulls towards 0, which is no log variance to
speak of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.parameters import finite, one_of
from handful.adapt.signatures import Known, SignatureHead
from handful.core.gaussians import class_means
from handful.core.kernels import Ridge, rbf
from handful.core.task import State
from handful.protocols import Needs

WIDEST = 10.0
"""No predicted log variance of standardised features is farther from 0."""


@dataclass(eq=False, repr=False, kw_only=True)
class GFZSL(SignatureHead):
    """Gaussians of classes by ridge regression from their signatures, linear or with a kernel.

    Args:
        kernel: ``"linear"``, phi.phi', or ``"rbf"``, exp(-beta (1 - phi.phi')).
        beta: sharpness of the second.
        ridge: of the means.
        variance_ridge: of the log variances.
    """

    key: ClassVar[str] = "gfzsl"
    needs: ClassVar[Needs] = Needs(text=True)
    shapes: ClassVar[Mapping[str, str]] = {
        **SignatureHead.shapes,
        "mean": "C D",
        "log_variance": "C D",
        "usual": "D",
        "known": "C T",
    }

    kernel: Literal["linear", "rbf"] = "linear"
    beta: float = 1.0
    ridge: float = 0.1
    variance_ridge: float = 1.0

    def learn(self, known: Known) -> State:
        """State: coefficients ``mean`` and ``log_variance`` ``[*b, C, D]``, zero for a class without examples, m
        ``usual [*b, D]``, and signatures of seen classes ``known [*b, C, T]``."""
        one_of("kernel", self.kernel, ("linear", "rbf"))
        finite("beta", self.beta, above=0)
        strengths = [finite(name, getattr(self, name), above=0) for name in ("ridge", "variance_ridge")]
        mean, log_variance = gaussians(known.x, known.y)
        weight = known.seen.to(mean.dtype)
        usual = log_variance.sum(-2) / weight.sum(-1, keepdim=True).clamp_min(1)
        log_variance = weight[..., None] * (log_variance - usual[..., None, :])
        k = self._kernel(known.s, known.s)
        fits = [
            Ridge.of(k, target, weight, torch.full_like(weight[..., 0], strength)).coefficients()
            for target, strength in zip((mean, log_variance), strengths, strict=True)
        ]
        return {"mean": fits[0], "log_variance": fits[1], "usual": usual, "known": known.s}

    def compatibility(self, state: State, x: Tensor) -> Tensor:
        """Log densities, but for a constant."""
        k = self._kernel(state["text"], state["known"])
        mean = k @ state["mean"]
        log_variance = (state["usual"][..., None, :] + k @ state["log_variance"]).clamp(-WIDEST, WIDEST)
        precision = (-log_variance).exp()
        square = x.square() @ precision.mT - 2 * x @ (mean * precision).mT
        constant = (log_variance + mean.square() * precision).sum(-1)
        return -0.5 * (square + constant[..., None, :])

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b.mT if self.kernel == "linear" else rbf(a, b, self.beta)


def gaussians(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Means and log variances of classes ``[*b, C, D]``, zero for one without examples.

    A class counts for its variances as if it had one more example that lies as far off as those of all classes do on
    average, so that a single example is no point.
    """
    mean, mass = class_means(x, y)
    square = (y.mT @ x.square() - mass[..., None] * mean.square()).clamp_min(0)
    pooled = square.sum(-2, keepdim=True) / mass.sum(-1).clamp_min(1e-30)[..., None, None]
    pooled = torch.where(pooled > 1e-6, pooled, 1.0)
    variance = (square + pooled) / (mass[..., None] + 1)
    there = mass[..., None] > 0
    return torch.where(there, mean, 0.0), torch.where(there, variance.clamp_min(1e-6).log(), 0.0)
