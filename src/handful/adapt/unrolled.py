"""The strengths of `handful.adapt.unem` learnt over tasks: iterations as layers of a network (paper 134).

lam_l = softplus(gamma_l),  T_l = 1 + softplus(t_l),  s = softplus(t1) ("gaussian") or T_e ("dirichlet")
minimise the cross-entropy of the queries' labels by Adam, the assignments u themselves standing as logits
"gaussian"    rate 0.1, 100 steps                "dirichlet"   rate 0.5, halved every 40 epochs, 80 epochs
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor

from handful.adapt.em import generalized_em
from handful.adapt.parameters import count, finite
from handful.adapt.transductive import cleaned, real_queries
from handful.adapt.unem import EPS, UNEM, softplus
from handful.core.task import Task
from handful.core.train import Adam
from handful.errors import BadInput

HALVED_EVERY = 40


@dataclass(frozen=True)
class Layers:
    """What is learnt, before it passes through softplus.

    Args:
        gamma, t: ``[L]`` or, for all layers the same, ``[1]``.
        scale: of the features, ``[]``.
    """

    gamma: Tensor
    t: Tensor
    scale: Tensor

    @classmethod
    def of(cls, head: UNEM, classes: int, per_layer: bool) -> Layers:
        """Where learning starts: gamma = C / k_eff (Dirichlet) or 1, t = 1, and 30 or 1 for the features."""
        dirichlet, n = head.family == "dirichlet", head.n_iter if per_layer else 1
        gamma = classes / (head.k_eff or classes) if dirichlet else 1.0
        first = (torch.full((n,), gamma), torch.ones(n), torch.tensor(30.0 if dirichlet else 1.0))
        return cls(*(value.double() for value in first))

    @property
    def parameters(self) -> list[Tensor]:
        """All of them."""
        return [self.gamma, self.t, self.scale]

    def forward(self, head: UNEM, task: Task) -> Tensor:
        """Assignments ``[*b, C, Q]`` of the queries of ``task``, which gradients can pass through."""
        assert task.query is not None
        query, real = cleaned(task.query), real_queries(task.query)
        state = head.start(task)
        dtype, n = task.support.dtype, head.n_iter
        lam = torch.nn.functional.softplus(self.gamma).to(dtype).expand(n)
        temperature = (1 + torch.nn.functional.softplus(self.t)).to(dtype).expand(n)
        scale = (torch.nn.functional.softplus(self.scale) if head.family == "gaussian" else self.scale).to(dtype)
        model, start = head.problem(state, query, real, scale)
        eps = EPS[head.family]
        return generalized_em(model, state["y"], real, lam, temperature, eps=eps, start=start)[0].softmax(-2)

    def onto(self, head: UNEM) -> UNEM:
        """The head with these strengths."""
        gamma, t = (values.expand(head.n_iter).tolist() for values in (self.gamma, self.t))
        scale = float(self.scale)
        found: UNEM = clone(head).set_params(
            lam=[softplus(value) for value in gamma],
            temperature=[1 + softplus(value) for value in t],
            feature_temperature=softplus(scale) if head.family == "gaussian" else scale,
        )
        return found


def learn(
    head: UNEM,
    tasks: Sequence[Task],
    answers: Sequence[Tensor],
    *,
    epochs: int | None = None,
    lr: float | None = None,
    per_layer: bool = True,
) -> UNEM:
    """``head`` with strengths learnt over validation tasks.

    Args:
        head: family, number of iterations and ``k_eff`` are taken from it.
        tasks: batches of tasks with queries, ``[b, …]``; one step of Adam each.
        answers: the class of each query ``[b, Q]``.
        epochs, lr: the paper's for the family when not given.
        per_layer: strengths of their own for each iteration.

    Raises:
        BadInput: no tasks, tasks without queries, or answers that do not fit them.
    """
    if not tasks or len(tasks) != len(answers):
        raise BadInput(f"{len(tasks)} batches of tasks and {len(answers)} of answers: one each, and at least one")
    if any(task.query is None for task in tasks):
        raise BadInput("the tasks need queries to learn from")
    for task, answer in zip(tasks, answers, strict=True):
        if task.query is not None and answer.shape != task.query.x.shape[:-1]:
            raise BadInput(f"answers of shape {tuple(answer.shape)} for queries of {tuple(task.query.x.shape[:-1])}")
    dirichlet = head.family == "dirichlet"
    epochs = (80 if dirichlet else 100) if epochs is None else count("epochs", epochs)
    lr = (0.5 if dirichlet else 0.1) if lr is None else finite("lr", lr, above=0)
    layers, adam = Layers.of(head, tasks[0].labels.shape[-1], per_layer), Adam()
    for epoch in range(epochs):
        rate = lr * 0.5 ** (epoch // HALVED_EVERY) if dirichlet else lr
        for task, answer in zip(tasks, answers, strict=True):
            with torch.enable_grad():
                free = [p.detach().clone().requires_grad_() for p in layers.parameters]
                u = Layers(*free).forward(head, task)
                loss = _cross_entropy(u, answer, real_queries(task.query)) if task.query else u.sum()
                gradients = torch.autograd.grad(loss, free)
            adam(layers.parameters, tuple(g.nan_to_num() for g in gradients), rate)
    return layers.onto(head)


def load_reference_params(head: UNEM, path: str | Path) -> UNEM:
    """``head`` with the strengths of one of the authors' ``.pt`` files. Gaussian ones belong to raw pooled features.

    Raises:
        BadInput: not such a file, or one for another number of iterations.
    """
    try:
        values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        read = {name: float(value) for name, value in values.items()}
    except Exception as error:  # damaged files fail in many ways
        raise BadInput(f"{path} holds no learnt parameters of UNEM") from error
    t, scale = ("t2", "t1") if head.family == "gaussian" else ("t", "emb_t")
    found = {name: _layers(read, name) for name in ("gamma", t)}
    sizes = {len(layer) for layer in found.values()}
    if scale not in read or sizes not in ({1}, {head.n_iter}) or not all(map(math.isfinite, read.values())):
        raise BadInput(f"{path} holds {sorted(read)}, not gamma, {t} and {scale} for {head.n_iter} iterations")
    gamma, temperature = (torch.tensor(found[name], dtype=torch.float64) for name in ("gamma", t))
    return Layers(gamma, temperature, torch.tensor(read[scale], dtype=torch.float64)).onto(head)


def _layers(read: dict[str, float], name: str) -> list[float]:
    if name in read:
        return [read[name]]
    return [read[f"{name}.{i}"] for i in range(len(read)) if f"{name}.{i}" in read]


def _cross_entropy(u: Tensor, answer: Tensor, real: Tensor) -> Tensor:
    """Of ``u [*b, C, Q]`` as logits, the mean over real queries."""
    log_p = u.log_softmax(-2).gather(-2, answer[..., None, :])[..., 0, :]
    return -(log_p * real).sum() / real.sum()
