"""LaSO: features of what two items share, of what either has, and of what one has and the other has not.

Paper 159: Alfassy et al., "LaSO: Label-Set Operations networks for multi-label few-shot learning", 2019.

    analytic    S(a, b) = relu(a - b),  I(a, b) = min(a, b),  U(a, b) = a + b,   for features a, b >= 0
    network     h = LeakyReLU(BN(W [a; b])),  then L times  h = LeakyReLU(BN(W h) + r),  out relu(W h),
                r the analytic one; gated: sigmoid(w.h) r
    label sets  S = Y_a (1 - Y_b),  I = min(Y_a, Y_b),  U = max(Y_a, Y_b)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor, nn

from handful.adapt.inputs import read_label_sets
from handful.adapt.parameters import count
from handful.errors import BadInput

Operation = Literal["subtract", "intersect", "union"]
SLOPE = 0.2
"""Of the leaky units."""


def subtract(a: Tensor, b: Tensor) -> Tensor:
    """``relu(a - b)``."""
    return (a - b).relu()


def union(a: Tensor, b: Tensor) -> Tensor:
    """``a + b``."""
    return a + b


ANALYTIC: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "subtract": subtract,
    "intersect": torch.minimum,
    "union": union,
}
"""The operations on features; `LaSO` learns what they miss."""


def label_set(operation: str, a: Tensor, b: Tensor) -> Tensor:
    """What ``operation`` makes of the label sets ``a, b [..., L]`` of 0 and 1."""
    if operation == "subtract":
        return a * (1 - b)
    return torch.minimum(a, b) if operation == "intersect" else torch.maximum(a, b)


class SetNetwork(nn.Module):
    """One operation on rows of features ``[n, D]``.

    Args:
        dim: D.
        residual: the analytic operation.
        n_layers: L.
        gated: multiply the residual by a sigmoid of what the layer sees.
    """

    def __init__(
        self, dim: int, residual: Callable[[Tensor, Tensor], Tensor], n_layers: int = 1, *, gated: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual
        self.mix, self.mix_norm = nn.Linear(2 * dim, dim), nn.BatchNorm1d(dim)
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(n_layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(dim) for _ in range(n_layers))
        self.gates = nn.ModuleList(nn.Linear(dim, 1) for _ in range(n_layers if gated else 0))
        self.out = nn.Linear(dim, dim)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Features ``[n, D]``, not negative."""
        leaky = nn.functional.leaky_relu
        h, residual = leaky(self.mix_norm(self.mix(torch.cat([a, b], -1))), SLOPE), self.residual(a, b)
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            gate = self.gates[i](h).sigmoid() if len(self.gates) else 1.0
            h = leaky(norm(layer(h)) + gate * residual, SLOPE)
        out: Tensor = self.out(h).relu()
        return out


class LaSO(nn.Module):
    """The three operations as networks.

    Args:
        dim: width of the features.
        n_layers: residual layers of each.
        gated: see `SetNetwork`.
    """

    def __init__(self, dim: int, n_layers: int = 1, *, gated: bool = False) -> None:
        super().__init__()
        self.dim = count("dim", dim, least=1)
        layers = count("n_layers", n_layers)
        self.subtract, self.intersect, self.union = (
            SetNetwork(dim, ANALYTIC[name], layers, gated=gated) for name in ("subtract", "intersect", "union")
        )

    def apply_to(self, operation: str, a: Tensor, b: Tensor) -> Tensor:
        """``operation`` of rows ``[..., D]``."""
        out: Tensor = getattr(self, operation)(a.reshape(-1, self.dim), b.reshape(-1, self.dim))
        return out.reshape(a.shape)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        """All that the losses look at, ``[n, D]`` each, by its formula with S, I and U for the operations.

        ``a`` and ``b`` are what is put together again: ``U(S(a,I(b,a)), I(a,b))`` and the same of b.
        """
        s, i, u = self.subtract, self.intersect, self.union
        out = {"S(a,b)": s(a, b), "S(b,a)": s(b, a), "I(a,b)": i(a, b), "I(b,a)": i(b, a)}
        out |= {"U(a,b)": u(a, b), "U(b,a)": u(b, a)}
        out |= {"S(S(a,b),b)": s(out["S(a,b)"], b), "S(S(b,a),a)": s(out["S(b,a)"], a)}
        out |= {"S(a,I(b,a))": s(a, out["I(b,a)"]), "S(b,I(a,b))": s(b, out["I(a,b)"])}
        out |= {"S(a,I(a,b))": s(a, out["I(a,b)"]), "S(b,I(b,a))": s(b, out["I(b,a)"])}
        out |= {"I(I(a,b),b)": i(out["I(a,b)"], b), "I(I(b,a),a)": i(out["I(b,a)"], a)}
        out |= {"U(U(a,b),b)": u(out["U(a,b)"], b), "U(U(b,a),a)": u(out["U(b,a)"], a)}
        return out | {"a": u(out["S(a,I(b,a))"], out["I(a,b)"]), "b": u(out["S(b,I(a,b))"], out["I(b,a)"])}


@dataclass(frozen=True)
class LabelSetAugmenter:
    """New rows and label sets from pairs of rows.

    Args:
        ops: which operations, each as often.
        networks: a trained `LaSO`; ``None``: the analytic operations.
        random_state: of the pairs.
    """

    ops: Sequence[Operation] = ("union",)
    networks: LaSO | None = None
    random_state: int | None = None

    def augment(self, Z: Any, Y: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
        """``n`` rows of features ``[n, D]`` and of labels ``[n, L]``, 0 or 1, from ``Z [m, D]`` and ``Y [m, L]``.

        Pairs are of two different rows with labels; those whose label set the operation empties are not drawn.

        Raises:
            BadInput: features that are negative or not finite, labels other than 0 and 1, an operation there is not,
                no pair that an operation can be applied to.
        """
        check_operations(self.ops)
        z = checked_features(Z)
        sets = read_label_sets(Y, len(z))
        if sets is None:
            raise BadInput("Y must be a matrix [m, L] of 0 and 1, or a set of labels a row")
        y, draw = torch.as_tensor(sets[0], dtype=z.dtype), check_random_state(self.random_state)
        rows, labels = [], []
        for i, operation in enumerate(self.ops):
            allowed = possible(operation, y).nonzero()
            if not len(allowed):
                raise BadInput(f"no two rows leave labels after {operation!r}")
            share = count("n", n) // len(self.ops) + (i < n % len(self.ops))
            a, b = allowed[torch.as_tensor(draw.randint(len(allowed), size=share), dtype=torch.long)].unbind(-1)
            rows.append(applied(operation, z[a], z[b], self.networks))
            labels.append(label_set(operation, y[a], y[b]))
        return torch.cat(rows).numpy(), torch.cat(labels).numpy().astype(int)


def check_operations(ops: Sequence[str]) -> None:
    """Raise `BadInput` unless these are operations, at least one."""
    if not ops or isinstance(ops, str) or any(name not in ANALYTIC for name in ops):
        raise BadInput(f"ops are some of {', '.join(map(repr, ANALYTIC))}, not {ops!r}")


def checked_features(Z: Any) -> Tensor:
    """``Z`` as a tensor ``[m, D]``. Raises `BadInput` unless it is a table of finite numbers, none negative."""
    z: np.ndarray = np.asarray(Z, dtype=np.float32 if getattr(Z, "dtype", None) == np.float32 else np.float64)
    if z.ndim != 2 or not z.size or not np.isfinite(z).all():
        raise BadInput(f"features must be finite numbers [m, D], not an array of shape {z.shape}")
    if bool((z < 0).any()):
        at = tuple(np.argwhere(z < 0)[0].tolist())
        raise BadInput(f"feature {at} is {z[at]:.3g}: sets need features from 0; take off the least of each channel")
    return torch.as_tensor(z)


def possible(operation: str, y: Tensor) -> Tensor:
    """Pairs of two rows of ``y [..., m, L]``, both with labels, that ``operation`` leaves some: ``[..., m, m]``."""
    some, shared = y.any(-1), (y @ y.mT) > 0
    pairs = some[..., :, None] & some[..., None, :]
    if operation == "intersect":
        pairs = pairs & shared
    elif operation == "subtract":
        pairs = pairs & ((y @ (1 - y).mT) > 0)
    return pairs & ~torch.eye(y.shape[-2], dtype=torch.bool, device=y.device)


def applied(operation: str, a: Tensor, b: Tensor, networks: LaSO | None) -> Tensor:
    """``operation`` of rows ``[..., D]``, by networks at rest or analytically."""
    if networks is None:
        return ANALYTIC[operation](a, b)
    if networks.dim != a.shape[-1]:
        raise BadInput(f"set networks of width {networks.dim} for features of width {a.shape[-1]}")
    weights = next(networks.parameters())
    with torch.no_grad():
        return networks.eval().apply_to(operation, a.to(weights), b.to(weights)).to(a)
