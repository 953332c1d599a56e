"""PUTM: a network learns, for each task, how far queries are from prototypes; no balance of the queries is assumed.

Paper 052: Tian et al., "Prototypes-oriented Transductive Few-shot Learning with
Conditional Transport", 2023.

    z = unit((x + 1e-6)^power), in coordinates of the span of support and queries
    repeat n_outer times:
        E  inner_steps of Adam on the network; F is the forward plan before the last of them      handful.core.navigator
        M  v_k = (sum_s y_sk z_s + sum_q F_qk z_q) / (sum y + sum F);   m_k <- m_k + alpha (v_k - m_k)
    once more E; answer by F

The network's inputs are the coordinates, so it matters which. ``basis="qr"`` is the authors': the first row is the
first axis, and the order of the rows sways the answer a little. ``"eigen"`` takes the principal axes, which no order
changes.
With ``project`` the rows are seen in the K - 1 dimensions that class means differ in, anew at each outer step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.parameters import count, finite, one_of, several
from handful.adapt.transductive import Transductive, cleaned, real_queries
from handful.adapt.transforms import Power, refuse_negative
from handful.core.distances import sqeuclidean, unit
from handful.core.gaussians import class_means
from handful.core.navigator import ConditionalTransport, distances, navigator
from handful.core.softem import among, real_classes, shares
from handful.core.task import Query, State, Task, lowest
from handful.core.train import Adam
from handful.errors import BadInput
from handful.protocols import Needs

BETAS = (0.5, 0.99)
SOFT_STEPS = 20
SHRINK = 10.0
"""Added to the weight of a class where its mean chooses the projection."""


@dataclass(eq=False, repr=False, kw_only=True)
class PUTM(Transductive):
    """Prototypes led by conditional transport.

    Args:
        rho: share of the forward plan in the loss; the authors take 0.5, and 1 for balanced queries.
        theta: share of the balance; 0, and 0.001 for balanced queries.
        alpha: how far prototypes move in a step, at one shot and at more.
        n_outer, inner_steps: numbers of steps.
        lr: Adam's rate.
        hidden: width of the network.
        power: exponent of the features, which may not be negative; 0 takes logarithms.
        basis: coordinates, see above.
        project: see above.
        soft_start: temperature of a soft k-means to start from; ``None``: class means.
        reference_scale: the deviations of the authors\' script: its initial weights and its target of the balance.
    """

    key: ClassVar[str] = "putm"
    needs: ClassVar[Needs] = Needs(transductive=True, positive=True, gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {"support": "N D", "y": "N C", "mean": "C D"}

    rho: float = 0.5
    theta: float = 0.0
    alpha: tuple[float, float] = (0.2, 0.1)
    n_outer: int = 50
    inner_steps: int = 30
    lr: float = 1e-3
    hidden: int = 128
    power: float = 0.6
    basis: Literal["qr", "eigen"] = "qr"
    project: bool = False
    soft_start: float | None = None
    reference_scale: bool = False

    def start(self, task: Task) -> State:
        """State: ``support [*b, N, D]`` transformed, ``y [*b, N, C]``, ``mean [*b, C, D]``."""
        self._check()
        y = task.y
        z = self._rows(task.x) * (y.sum(-1, keepdim=True) > 0)
        return {"support": z, "y": y, "mean": class_means(z, y)[0]}

    def move(self, state: State, query: Query) -> tuple[Tensor, State]:
        """log F, and the prototypes."""
        query, real, y = cleaned(query), real_queries(query), state["y"]
        z = torch.cat([state["support"], self._rows(query.x) * real[..., None]], -2)
        seen = torch.cat([y.sum(-1), real.to(z.dtype)], -1)
        forward, a = self._learn(self._coordinates(z, seen), y, real, (seen > 0).sum(-1))
        logits = forward.clamp_min(torch.finfo(z.dtype).tiny).log()
        known = real_classes(y)[..., None, :]
        return torch.where(known, logits, lowest(z)), {**state, "mean": a @ z}

    def inductive(self, state: State, query: Query) -> Tensor:
        """``-|z - m_k|^2``: the network knows this task's coordinates only."""
        z = self._rows(query.x)
        logits = -sqeuclidean(z, state["mean"])
        return torch.where(real_classes(state["y"])[..., None, :], logits, lowest(z))

    def _learn(self, z: Tensor, y: Tensor, real: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The last forward plan ``[*b, Q, C]``, and prototypes as coefficients ``[*b, C, N + Q]`` of the rows."""
        n, known, labels = y.shape[-2], real_classes(y), y.mT
        transport = ConditionalTransport(real, known, self.rho, self.theta, counts=self.reference_scale)
        p = self._first(z, labels, known, real)
        a = shares(p)
        width = (known.sum(-1) - 1).expand(y.shape[:-2]) if self.project else seen.clamp_max(z.shape[-1])
        most = y.shape[-1] - 1 if self.project else z.shape[-1]
        runs = max(1, y.shape[:-2].numel()) if self.reference_scale else None
        seed = 0 if self.random_state is None else int(self.random_state)
        parameters = navigator(width, most, self.hidden, seed=seed, like=z, runs=runs)
        adam, alpha = Adam(betas=BETAS), self._rate(y)
        for outer in range(self.n_outer + 1):
            rows = z @ self._axes(z, p, known) if self.project else z
            forward = self._plan(parameters, adam, rows[..., n:, :], a @ rows, transport)
            p = torch.cat([labels, forward.mT], -1)
            if outer < self.n_outer:
                a = torch.lerp(a, shares(p), alpha)
        return forward, a

    def _plan(
        self, parameters: list[Tensor], adam: Adam, q: Tensor, means: Tensor, transport: ConditionalTransport
    ) -> Tensor:
        """The forward plan before the last update of ``parameters``."""
        square = (q[..., :, None, :] - means[..., None, :, :]).square()
        cost = square.sum(-1)
        for _ in range(self.inner_steps):
            with torch.enable_grad():
                free = [p.detach().requires_grad_() for p in parameters]
                forward, backward = transport.plans(distances(free, square))
                gradients = torch.autograd.grad(transport.loss(cost, forward, backward).sum(), free)
            adam(parameters, gradients, self.lr)
        return forward.detach() if self.inner_steps else transport.plans(distances(parameters, square))[0]

    def _first(self, z: Tensor, labels: Tensor, known: Tensor, real: Tensor) -> Tensor:
        """Assignments ``[*b, C, N + Q]`` that prototypes start from."""
        n, p = labels.shape[-1], torch.nn.functional.pad(labels, (0, real.shape[-1]))
        if self.soft_start is None:
            return p
        for _ in range(SOFT_STEPS):
            logits = among(known, sqeuclidean(shares(p) @ z, z[..., n:, :]) * -self.soft_start)
            p = torch.cat([labels, logits.softmax(-2) * real[..., None, :]], -1)
        return p

    @staticmethod
    def _axes(z: Tensor, p: Tensor, known: Tensor) -> Tensor:
        """Orthonormal axes ``[*b, d, C - 1]`` of what shrunk class means differ in; zero for padded classes."""
        means = (p / (p.sum(-1, keepdim=True) + SHRINK)) @ z
        apart = torch.where(known[..., 1:, None], means[..., 1:, :] - means[..., :1, :], 0.0)
        axes, _ = torch.linalg.qr(apart.mT)
        found: Tensor = torch.where(known[..., None, 1:], axes, 0.0)
        return found

    def _coordinates(self, z: Tensor, weight: Tensor) -> Tensor:
        """Rows ``[*b, n, min(n, D)]`` in the chosen basis of their span."""
        if self.basis == "qr":
            triangle: Tensor = torch.linalg.qr(z.mT, mode="r").R
            return triangle.mT
        root = weight.sqrt()[..., None]
        axes: Tensor = torch.linalg.svd(root * z, full_matrices=False).Vh
        return z @ axes.mT

    def _rows(self, x: Tensor) -> Tensor:
        refuse_negative(x, "put Relu() before")
        return unit(Power(beta=self.power).apply({}, x))

    def _rate(self, y: Tensor) -> Tensor:
        """alpha ``[*b, 1, 1]`` by the most shots a class has."""
        several = y.sum(-2).amax(-1) > 1
        one, more = self.alpha
        return torch.where(several, more, one).to(y.dtype)[..., None, None]

    def _check(self) -> None:
        for name in ("rho", "theta"):
            finite(name, getattr(self, name), least=0, most=1)
        alphas = several("alpha", self.alpha, what := "two numbers, for one shot and for more")
        if len(alphas) != 2:
            raise BadInput(f"alpha is {what}, not {self.alpha!r}")
        for alpha in alphas:
            finite("alpha", alpha, least=0, most=1)
        finite("lr", self.lr, above=0)
        finite("power", self.power, least=0)
        count("n_outer", self.n_outer)
        count("inner_steps", self.inner_steps)
        count("hidden", self.hidden, 2)
        one_of("basis", self.basis, ("qr", "eigen"))
        if self.soft_start is not None:
            finite("soft_start", self.soft_start, above=0)
