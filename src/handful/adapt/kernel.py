"""Kernel ridge regression, from zero or from the zero-shot model.

Paper 140: Bendou, Ouasfi, Gripon, Boukhayma, "ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large
Vision-Language Models", 2025.

    k(a, b) = exp(-beta (1 - a.b)) on unit rows
    min_f  sum_i |f(x_i) - y_i|^2 + lambda |f - f0|_H^2,   f0(z) = z W', no logit scale       (eq. 9)
    f(z) = f0(z) + k(z, S) (K / lambda + I)^-1 (Y - f0(S))                                   as coded: 'proker'
    f(z) = f0(z) + k(z, S) (K + lambda I)^-1 (Y - f0(S))                                     the minimiser: 'krr'

Of more examples than a kernel matrix can have, the kernel is approximated: `kernel_features`. Local averages, of which
Tip-Adapter is one: `local_kernel`. With class text that is trained along with it: `proker_clap`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.kernel_features import fourier, frequencies, landmarks, ridge, whitening
from handful.adapt.parameters import count, finite, one_of
from handful.adapt.zero_shot import prior_logits
from handful.core.calibration import pick
from handful.core.distances import unit
from handful.core.kernels import Ridge, leave_out_path, rbf
from handful.core.task import Query, State, Task
from handful.errors import BadInput
from handful.protocols import Needs, Ranges

BETAS = (1.0, 3.0, 6.0)
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
PUBLISHED = {1: (3.0, 0.05), 2: (2.6, 0.05), 4: (1.5, 0.05), 8: (1.66, 0.07), 16: (1.7, 0.1)}
"""Paper 140's (beta, lambda) by shots, found on ImageNet and used without validation."""

LIMIT = 8 * 2**30
"""Bytes a kernel matrix may take."""
Solver = Literal["cholesky", "nystroem", "rff"]
Convention = Literal["proker", "krr"]
Strength = float | Literal["shots", "loo"]
MANY = 256
"""Support rows from which one eigendecomposition is cheaper than a factorisation for each strength."""


@dataclass(frozen=True)
class Regression:
    """One kernel ridge regression a task, its strengths not yet chosen.

    Args:
        task: whose support rows it is of.
        target: what is regressed on ``[*b, N, C]``.
        offset: what predictions are added to before they are judged ``[*b, N, C]``.
        times_lambda: whether predictions are multiplied by lambda.
    """

    task: Task
    target: Tensor
    offset: Tensor
    times_lambda: bool = False

    def kernel(self, beta: Tensor) -> Tensor:
        """``[*b, N, N]`` for beta ``[*b]``. Raises `BadInput` when it would not fit into memory."""
        x = unit(self.task.x)
        self._refuse_large(x.shape[-2])
        return rbf(x, x, beta[..., None, None])

    def _refuse_large(self, columns: int) -> None:
        x = self.task.x
        size = x[..., 0].numel() * columns * x.element_size()
        if size > LIMIT:
            raise BadInput(
                f"kernel ridge regression of {x.shape[-2]} rows needs several matrices of {size / 2**30:.0f} GiB: take "
                "a linear head ('gda', 'logistic'), 'proker' with solver='nystroem' and few n_components, or fewer rows"
            )

    def fit(self, beta: Tensor, lam: Tensor) -> State:
        """The state of a head, for beta and lambda ``[*b]``."""
        ridge = Ridge.of(self.kernel(beta), self.target, self.task.weight, lam)
        coefficient = ridge.coefficients() * self._gain(lam)
        return {"keys": unit(self.task.x), "coefficient": coefficient, "beta": beta, "strength": lam}

    def approximate(self, solver: Solver, n: int, beta: Tensor, lam: Tensor) -> State:
        """As `fit`, by n features of the kernel; keys are landmarks or frequencies."""
        x, seed = unit(self.task.x), self.task.seed
        self._refuse_large(n)
        if solver == "rff":
            keys = frequencies(x.shape[-1], n, beta, seed)
            coefficient = ridge(fourier(x, keys), self.target, self.task.weight, lam)
        else:
            keys = landmarks(x, self.task.weight > 0, n, seed)
            white = whitening(keys, beta)
            features = rbf(x, keys, beta[..., None, None]) @ white
            coefficient = white @ ridge(features, self.target, self.task.weight, lam)
        return {"keys": keys, "coefficient": coefficient * self._gain(lam), "beta": beta, "strength": lam}

    def leave_out(self, kernel: Tensor, lam: Tensor) -> Tensor:
        """Offset plus prediction ``[*b, N, C]`` of each row by the fit without its item."""
        ridge = Ridge.of(kernel, self.target, self.task.weight, lam)
        return self.offset + self._gain(lam) * ridge.leave_out(self.task.items)

    def choose(self, betas: Tensor, lams: Tensor) -> tuple[Tensor, Tensor]:
        """The pair of ``betas [S, *b]`` and ``lams [T, *b]`` that leave-one-out finds best for each task ``[*b]``."""
        sets = torch.cat([self._each(self.kernel(beta), lams) for beta in betas])
        best = pick(sets, self.task.y, self.task.class_mask)[None]
        return betas.gather(0, best // len(lams))[0], lams.gather(0, best % len(lams))[0]

    def _each(self, kernel: Tensor, lams: Tensor) -> Tensor:
        """`leave_out` for each of ``lams [T, *b]``: ``[T, *b, N, C]``."""
        if kernel.shape[-1] < MANY or not self.task.one_row_an_item:
            return torch.stack([self.leave_out(kernel, lam) for lam in lams])
        left_out = leave_out_path(kernel, self.target, self.task.weight, lams)
        return self.offset + (lams[..., None, None] if self.times_lambda else 1.0) * left_out

    def _gain(self, lam: Tensor) -> Tensor | float:
        return lam[..., None, None] if self.times_lambda else 1.0


@dataclass(eq=False, repr=False, kw_only=True)
class KernelHead(Head):
    """What these heads share: a state of keys and coefficients, and how strengths are found."""

    shapes: ClassVar[Mapping[str, str]] = {"keys": "N D", "coefficient": "N C", "beta": "", "strength": ""}

    @property
    def directions(self) -> bool:
        """Rows are made unit."""
        return True

    def adapt(self, task: Task) -> State:
        """State: keys ``[*b, N, D]``, ``coefficient [*b, N, C]``, ``beta [*b]``, ``strength [*b]``."""
        regression = self._regression(task)
        return regression.fit(*self._strengths(regression))

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Closed form, by item; beta and the ridge are held."""
        regression = self._regression(task)
        beta, lam = self._strengths(regression)
        return regression.leave_out(regression.kernel(beta), lam)

    @abstractmethod
    def _regression(self, task: Task) -> Regression: ...

    @abstractmethod
    def _strengths(self, regression: Regression) -> tuple[Tensor, Tensor]: ...


@dataclass(eq=False, repr=False, kw_only=True)
class KernelRidge(KernelHead):
    """Gaussian kernel ridge regression of the labels on unit rows.

    Args:
        beta: of the kernel; ``"loo"`` chooses among 1, 3 and 6.
        alpha: the ridge; ``"loo"`` chooses among 0.01 … 3 by closed-form leave-one-out (over items). Where a class has
            a single item leave-one-out cannot judge, and 3 and 0.1 are used.
    """

    key: ClassVar[str] = "kernel-ridge"
    needs: ClassVar[Needs] = Needs()
    ranges: ClassVar[Ranges] = {"beta": (0.3, 30.0), "alpha": (0.01, 10.0)}

    beta: float | Literal["loo"] = "loo"
    alpha: float | Literal["loo"] = "loo"

    def answer(self, state: State, query: Query) -> Tensor:
        """``k(z, S) a``: how far above the flat guess 1/C."""
        return rbf(unit(query.x), state["keys"], state["beta"][..., None, None]) @ state["coefficient"]

    def held(self, state: State) -> Self:
        """With the beta and alpha that were chosen."""
        return replace(self, beta=float(state["beta"]), alpha=float(state["strength"]))

    def _regression(self, task: Task) -> Regression:
        real = (task.weight[..., None] > 0) & task.class_mask[..., None, :]
        row = torch.where(real, task.labels, 0.0)
        row = row / row.sum(-1, keepdim=True).clamp_min(1e-30)
        target = torch.where(real, row - 1 / task.ways.to(row.dtype)[..., None, None], 0.0)
        return Regression(task, target, torch.zeros_like(target))

    def _strengths(self, regression: Regression) -> tuple[Tensor, Tensor]:
        like = regression.target.new_ones(regression.target.shape[:-2])
        beta = _candidates("beta", self.beta, BETAS, 3.0 * like, zero=True)
        lam = _candidates("alpha", self.alpha, STRENGTHS, 0.1 * like)
        return _search(regression, beta, lam)


@dataclass(eq=False, repr=False, kw_only=True)
class ProKeR(KernelHead):
    """Kernel ridge regression of what the zero-shot model gets wrong.

    Args:
        beta: a number, ``"shots"`` (the paper's values without validation, nearest number of shots) or ``"loo"`` (1, 3
            or 6 by closed-form leave-one-out over items; as ``"shots"`` where a class has a single item).
        lam: likewise, ``"loo"`` being 0.01 … 3.
        convention: ``"proker"`` as the authors coded it, lambda times the correction of ``"krr"``.
        solver: ``"cholesky"``, exact; ``"nystroem"`` and ``"rff"`` (random Fourier features) approximate the kernel,
            for more examples than its matrix can have. They cannot leave one out: beta and lam are then no ``"loo"``.
        n_components: landmarks or random features they take, drawn with ``random_state``.
    """

    key: ClassVar[str] = "proker"
    needs: ClassVar[Needs] = Needs(text=True)

    beta: Strength = "shots"
    lam: Strength = "shots"
    convention: Convention = "proker"
    solver: Solver = "cholesky"
    n_components: int = 1000

    def adapt(self, task: Task) -> State:
        """State: keys ``[*b, N, D]``, ``coefficient [*b, N, C]``, ``beta [*b]``, ``strength [*b]``."""
        one_of("solver", self.solver, get_args(Solver))
        if self.solver == "cholesky":
            return super().adapt(task)
        count("n_components", self.n_components, 1)
        for name, value in (("beta", self.beta), ("lam", self.lam)):
            if value == "loo":
                raise BadInput(f"{name} 'loo' needs solver='cholesky', not {self.solver!r}: give a number or 'shots'")
        regression = self._regression(task)
        return regression.approximate(self.solver, self.n_components, *self._strengths(regression))

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Closed form, by item, beta and the ridge held; of approximations there is none."""
        return super().leave_one_out(task) if self.solver == "cholesky" else None

    def answer(self, state: State, query: Query) -> Tensor:
        """``f0(z) + k(z, S) a``."""
        z, keys = unit(query.x), state["keys"]
        kernel = fourier(z, keys) if self.solver == "rff" else rbf(z, keys, state["beta"][..., None, None])
        return prior_logits(query.prior) / self.logit_scale + kernel @ state["coefficient"]

    def held(self, state: State) -> Self:
        """With the beta and lambda that were chosen."""
        return replace(self, beta=float(state["beta"]), lam=float(state["strength"]))

    def _regression(self, task: Task) -> Regression:
        return correction(task, prior_logits(task.offset) / self.logit_scale, self.convention)

    def _strengths(self, regression: Regression) -> tuple[Tensor, Tensor]:
        return strengths(regression, self.beta, self.lam)


def correction(task: Task, start: Tensor, convention: Convention) -> Regression:
    """The regression of what answers ``start [*b, N, C]`` to the support get wrong."""
    one_of("convention", convention, get_args(Convention))
    real = (task.weight[..., None] > 0) & task.class_mask[..., None, :]
    return Regression(task, torch.where(real, task.labels - start, 0.0), start, convention == "proker")


def strengths(regression: Regression, beta: Strength, lam: Strength) -> tuple[Tensor, Tensor]:
    """Beta and lambda ``[*b]``: given, published or found by leave-one-out; see `ProKeR`."""
    usual = published(regression.task)
    return _search(
        regression,
        _candidates("beta", beta, BETAS, usual[0], zero=True, shots=True),
        _candidates("lam", lam, STRENGTHS, usual[1], shots=True),
    )


def published(task: Task) -> tuple[Tensor, Tensor]:
    """Paper 140's beta and lambda ``[*b]`` for the nearest number of shots, averaged over classes."""
    shots = task.y.sum((-2, -1)) / task.ways
    table = shots.new_tensor([(k, *pair) for k, pair in PUBLISHED.items()])
    row = table[(shots[..., None] - table[:, 0]).abs().argmin(-1)]
    return row[..., 1], row[..., 2]


@dataclass(frozen=True)
class _Candidates:
    """Values to try ``[S, *b]``, and the one to use where nothing can be judged ``[*b]``."""

    grid: Tensor
    start: Tensor


def _candidates(
    name: str, value: float | str, grid: tuple[float, ...], start: Tensor, *, zero: bool = False, shots: bool = False
) -> _Candidates:
    """What a parameter says. Raises `BadInput` when it is no number in its range and none of its words."""
    if isinstance(value, str):
        words = ["shots", "loo"] if shots else ["loo"]
        if value not in words:
            raise BadInput(f"{name} is a number or {' or '.join(map(repr, words))}, not {value!r}")
        tried = start.new_tensor(grid).reshape(-1, *[1] * start.dim()).expand(-1, *start.shape)
        return _Candidates(tried if value == "loo" else start[None], start)
    number = finite(name, value, least=0) if zero else finite(name, value, above=0)
    start = torch.full_like(start, number)
    return _Candidates(start[None], start)


def _search(regression: Regression, beta: _Candidates, lam: _Candidates) -> tuple[Tensor, Tensor]:
    judged = regression.task.fewest_items >= 2
    if len(beta.grid) * len(lam.grid) == 1 or not judged.any():
        return beta.start, lam.start
    chosen = regression.choose(beta.grid, lam.grid)
    return torch.where(judged, chosen[0], beta.start), torch.where(judged, chosen[1], lam.start)
