"""Pro2: a few orthogonal directions that tell plentiful source data apart, weighed anew on a few target examples.

Paper 112: Chen, Lee, Setlur, Levine, Finn, "Project and Probe: Sample-Efficient Domain Adaptation by Interpolating
Orthogonal Features", 2023.

    project   min_P  sum_i E_source loss(P_i z + b_i, y)   s.t.  P_i . P_j = 0 for i != j,   P [d, D]
    joint         AdamW on all rows; after every step  Q R = qr(P'),  P = (Q diag(R))'
    sequential    u = the weights of a logistic regression, z <- z - (z.u) u, and again
    probe     logits = w (P z) + b, a logistic regression on the target examples

Source data of two classes has one set of directions. Of more, each class against the rest has its own: rows are
orthogonal within a set, and the probe sees all sets. Row i does not depend on rows after it, so fewer directions are
the first of many.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.logistic import Logistic
from handful.adapt.parameters import count, finite, one_of
from handful.core.calibration import pick
from handful.core.softmax_regression import fit_softmax
from handful.core.task import Query, State, Task
from handful.core.train import AdamW, descend
from handful.errors import BadInput
from handful.protocols import Needs

GRID = (1, 4, 16, 64)
FEW = 16
"""Target examples below which there is nothing to choose by."""


@dataclass(eq=False, repr=False, kw_only=True)
class ProjectAndProbe(Head):
    """Logistic regression on a few orthogonal directions learnt from ``background=(features, labels)``.

    Args:
        n_directions: d; ``"cv"`` chooses among 1, 4, 16 and 64 by folds over the target items, and takes 4 below 16
            examples or where a class has a single item.
        solver: ``"joint"`` (the paper's) or ``"sequential"`` (rows of length 1, exact and without a draw).
        project_steps: steps of the joint solver.
        project_lr: its rate.
        project_decay: its weight decay.
        project_C: inverse strength of the penalty of each regression of the sequential solver.
        probe_C: inverse strength of the penalty of the probe.
    """

    key: ClassVar[str] = "pro2"
    needs: ClassVar[Needs] = Needs(background=True, gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {"components": "M D", "weight": "C M", "bias": "C", "directions": ""}
    leaves: ClassVar[Literal["item", "fold"]] = "fold"

    n_directions: int | Literal["cv"] = "cv"
    solver: Literal["joint", "sequential"] = "joint"
    project_steps: int = 100
    project_lr: float = 0.01
    project_decay: float = 0.01
    project_C: float = 1.0  # noqa: N815
    probe_C: float = 1.0  # noqa: N815

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """See `Head.fit`; warns of classes that the source data have no item of: no direction was learnt for them."""
        super().fit(X, y, sample_weight)
        source = set(np.asarray(self.background[1]).tolist())
        if unseen := [label for label in self.classes_.tolist() if label not in source]:
            warnings.warn(f"the source data have no item of class {unseen[0]!r}", UserWarning, stacklevel=2)
        return self

    def adapt(self, task: Task) -> State:
        """State: ``components [*b, M, D]``, a probe ``weight [*b, C, M]``, ``bias [*b, C]``, ``directions [*b]`` (d).

        Raises:
            BadInput: a parameter out of range, more directions than features, source data that cannot be told apart.
        """
        components, directions = self._project(task)
        probe = self._probe().adapt(replace(task, support=task.x @ components.mT))
        return {
            "components": components,
            "weight": probe["weight"],
            "bias": probe["bias"],
            "directions": directions,
        }

    def answer(self, state: State, query: Query) -> Tensor:
        """``w (P z) + b``."""
        return query.x @ state["components"].mT @ state["weight"].mT + state["bias"][..., None, :]

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Out-of-fold logits of the probe; the directions know nothing of the target."""
        components, _ = self._project(task)
        return self._probe().leave_one_out(replace(task, support=task.x @ components.mT))

    def held(self, state: State) -> Self:
        """With the number of directions that was chosen."""
        return replace(self, n_directions=int(state["directions"]))

    @property
    def components_(self) -> np.ndarray:
        """The directions of the fitted head ``[M, D]``; of more than two source classes, class by class."""
        check_is_fitted(self)
        out: np.ndarray = self.state_["components"].cpu().numpy()
        return out

    def _probe(self) -> Logistic:
        return Logistic(C=finite("probe_C", self.probe_C, above=0))

    def _project(self, task: Task) -> tuple[Tensor, Tensor]:
        """Directions ``[*b, M, D]``, zero beyond those that were chosen, and how many were ``[*b]``."""
        one_of("solver", self.solver, ("joint", "sequential"))
        batch, width = task.support.shape[:-2], task.support.shape[-1]
        few = (task.fewest_items < 2) | (task.y.sum((-2, -1)) < FEW)
        grid = [min(4, width)]
        if self.n_directions != "cv":
            grid = [self._count(width)]
        elif not bool(few.all()):
            grid = sorted({*grid, *(d for d in GRID if d <= width)})
        rows = self._directions(task, max(grid))  # [K, d, D]
        chosen = torch.full(batch, grid[0], device=rows.device)
        if len(grid) > 1:
            probe, tried = self._probe(), [rows[:, :d].flatten(0, 1) for d in grid]
            logits = [probe.leave_one_out(replace(task, support=task.x @ some.mT)) for some in tried]
            index = pick(torch.stack([out for out in logits if out is not None]), task.y, task.class_mask)
            chosen = torch.where(few, min(4, width), torch.as_tensor(grid, device=rows.device)[index])
        rows = rows[:, : int(chosen.max())]
        kept = torch.arange(rows.shape[1], device=rows.device) < chosen[..., None]
        return torch.where(kept[..., None, :, None], rows, 0.0).flatten(-3, -2), chosen.to(rows.dtype)

    def _count(self, width: int) -> int:
        if isinstance(self.n_directions, str):
            raise BadInput(f"n_directions is a whole number from 1 or 'cv', not {self.n_directions!r}")
        if count("n_directions", self.n_directions, least=1) > width:
            raise BadInput(f"n_directions is {self.n_directions}, but features of width {width} have no more than that")
        return self.n_directions

    def _directions(self, task: Task, d: int) -> Tensor:
        """``[K, d, D]``: of two source classes K = 1, of more each against the rest."""
        if task.background is None:
            raise BadInput("ProjectAndProbe needs items of base classes: give background=(features, labels)")
        if task.background.labels is None:
            raise BadInput("ProjectAndProbe needs labels of the source data: give background=(features, labels)")
        x, labels = task.background.x, task.background.labels
        classes = torch.unique(labels)
        if len(classes) < 2:
            raise BadInput("the background has one class only: directions need two to tell apart")
        y = (labels == (classes[1:] if len(classes) == 2 else classes)[:, None]).to(x.dtype)  # [K, B]
        return self._joint(x, y, d, task.seed) if self.solver == "joint" else self._sequential(x, y, d)

    def _joint(self, x: Tensor, y: Tensor, d: int, seed: int) -> Tensor:
        steps = count("project_steps", self.project_steps, least=1)
        lr, decay = finite("project_lr", self.project_lr, above=0), finite("project_decay", self.project_decay, least=0)
        generator = torch.Generator().manual_seed(seed)
        draw = torch.rand(d, len(y), x.shape[-1], generator=generator, dtype=torch.float64).transpose(0, 1)
        start = ((2 * draw - 1) / x.shape[-1] ** 0.5).to(x)  # as a linear layer starts

        def losses(parameters: list[Tensor], _: Tensor) -> Tensor:
            rows, bias = parameters
            logits = x @ rows.mT + bias[:, None]
            each = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, y[..., None].expand_as(logits), reduction="none"
            )
            return each.mean(-2).sum(-1)

        turns = torch.arange(steps)
        update = _Orthogonal(AdamW(weight_decay=decay))
        return descend([start, start.new_zeros(len(y), d)], losses, turns, lambda _: lr, update)[0]

    def _sequential(self, x: Tensor, y: Tensor, d: int) -> Tensor:
        strength = finite("project_C", self.project_C, above=0) / 2  # scikit-learn penalises one difference of weights
        both, mask = torch.stack([1 - y, y], -1), torch.ones(2, dtype=torch.bool, device=x.device)
        left, rows = x.expand(len(y), *x.shape), x.new_zeros(len(y), 0, x.shape[-1])
        for i in range(d):
            weight = fit_softmax(left, both, mask.expand(len(y), 2), strength)[0]
            u = (weight[:, 1] - weight[:, 0])[:, None]
            u = u - u @ rows.mT @ rows  # rounding adds up
            reach = ((left - left.mean(-2, keepdim=True)) @ u.mT).abs().amax((-2, -1))
            if bool(reach.min() <= torch.finfo(x.dtype).eps ** 0.5):
                raise BadInput(
                    f"the background tells classes apart in {i} directions only, not {d}: lower n_directions"
                )
            u = torch.nn.functional.normalize(u, dim=-1)
            rows = torch.cat([rows, u], 1)
            left = left - (left @ u.mT) @ u
        return rows


@dataclass
class _Orthogonal:
    """Steps as ``rule`` takes them, then makes the rows of the first parameter orthogonal, the first row staying."""

    rule: AdamW

    def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
        self.rule(parameters, gradients, rate)
        q, r = torch.linalg.qr(parameters[0].mT)
        parameters[0].copy_((q * r.diagonal(dim1=-2, dim2=-1)[..., None, :]).mT)
