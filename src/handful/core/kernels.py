"""Kernels and the linear systems they lead to.

Weighted kernel ridge regression  min_f sum_i w_i |y_i - f(x_i)|^2 + lambda |f|_H^2  has f(x) = k(x, X) a with
a = W^(1/2) M W^(1/2) Y and M = (W^(1/2) K W^(1/2) + lambda I)^-1. In this form a row of weight 0 drops out exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from handful.core.items import Items
from handful.errors import BadInput


def rbf(a: Tensor, b: Tensor, beta: float | Tensor) -> Tensor:
    """``exp(-beta (1 - a.b))`` ``[..., n, m]`` of unit rows: the Gaussian kernel with gamma = beta / 2."""
    return torch.exp(-beta * (1 - a @ b.mT))


@dataclass(frozen=True)
class Ridge:
    """The system of one kernel matrix and one strength a task.

    Args:
        factor: Cholesky factor of ``W^(1/2) K W^(1/2) + lambda I`` ``[*b, N, N]``.
        root: square roots of the weights ``[*b, N]``.
        target: ``W^(1/2) Y`` ``[*b, N, C]``.
    """

    factor: Tensor
    root: Tensor
    target: Tensor

    @classmethod
    def of(cls, kernel: Tensor, target: Tensor, weight: Tensor, strength: Tensor) -> Ridge:
        """From the kernel matrix ``[*b, N, N]``, targets ``[*b, N, C]``, weights ``[*b, N]`` and lambda ``[*b]``.

        Raises:
            BadInput: lambda is too small for the precision of the numbers.
        """
        root = weight.clamp_min(0).sqrt()
        matrix = root[..., :, None] * kernel * root[..., None, :]
        matrix = matrix + strength[..., None, None] * torch.eye(
            matrix.shape[-1], dtype=matrix.dtype, device=matrix.device
        )
        factor, info = torch.linalg.cholesky_ex(matrix)
        if bool((info > 0).any()):
            raise BadInput(
                f"a ridge of {float(strength.min()):.3g} is too small for {matrix.dtype}: the system is singular"
            )
        return cls(factor, root, root[..., None] * target)

    def coefficients(self) -> Tensor:
        """``a`` ``[*b, N, C]``."""
        return self.root[..., None] * torch.cholesky_solve(self.target, self.factor)

    def leave_out(self, items: Items) -> Tensor:
        """Predictions ``[*b, N, C]`` for each row by the fit without its item, in closed form.

        With r = M W^(1/2) Y, the residual of the rows B of an item under the fit without them is (M_BB)^-1 r_B.
        """
        inverse = torch.cholesky_inverse(self.factor)
        residual = inverse @ self.target
        out = items.solve(items.within(inverse), residual)
        real = self.root[..., None] > 0
        return torch.where(real, (self.target - out) / self.root[..., None].clamp_min(1e-30), 0.0)


def leave_out_path(kernel: Tensor, target: Tensor, weight: Tensor, strengths: Tensor) -> Tensor:
    """`Ridge.leave_out` for each of ``strengths [T, *b]`` where every row is an item of its own: ``[T, *b, N, C]``.

    One eigendecomposition V diag(s) V' of ``W^(1/2) K W^(1/2)`` serves all: M = V diag(1 / (s + lambda)) V', of which
    leave-one-out needs the diagonal and M W^(1/2) Y only. Worth it for many strengths and rows.
    """
    root = weight.clamp_min(0).sqrt()
    target = root[..., None] * target
    values, vectors = torch.linalg.eigh(root[..., :, None] * kernel * root[..., None, :])
    turned, squares, out = vectors.mT @ target, vectors.square(), []
    for strength in strengths:
        shrink = 1 / (values.clamp_min(0) + strength[..., None])
        residual = vectors @ (shrink[..., None] * turned) / (squares @ shrink[..., None])
        out.append(torch.where(root[..., None] > 0, (target - residual) / root[..., None].clamp_min(1e-30), 0.0))
    return torch.stack(out)
