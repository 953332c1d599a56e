"""Choose among ready classifiers by their errors on the support, with a certificate of the error on new items.

Paper 005: Rezk, Lee, Gouk, Hospedales, Kim, "Model Diffusion for Certifiable Few-shot Transfer Learning", 2025. The
finite set of M classifiers is fixed before the support is seen; learning is evaluating, without a gradient:

    h* = argmin_h errors(h),   ties by the lower log loss,   R(h*) <= bound(errors, n, M, delta)

The set is given, as linear classifiers fitted on other data, or it is zero-shot: each template of class text (and the
mean of all) at each logit scale. A search by clusters looks at fewer of them; the certificate counts all M.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.inputs import read_items
from handful.adapt.parameters import count, finite, one_of
from handful.core.certificate import BOUNDS, Bound, Certificate, risk_certificate
from handful.core.distances import unit
from handful.core.task import Query, State, Task, mask_classes
from handful.errors import BadInput
from handful.protocols import Needs

CLUSTERS = (8, 16, 32, 64, 128, 256)
"""Numbers of clusters that are tried."""
JUDGED = 1000
"""Hypotheses on which a number of clusters is judged."""


class _Needs:
    """Class text, unless hypotheses are given, or were given to the fit that a state comes from."""

    def __get__(self, head: Steel | None, _: Any = None) -> Needs:
        if head is None:
            return Needs(text=True, stochastic=True)
        aligned = getattr(head, "state_", {}).get("aligned")
        given = head.hypotheses is not None or (aligned is not None and not bool(aligned.any()))
        return Needs(text=not given, stochastic=head.search == "clusters")


@dataclass(eq=False, repr=False, kw_only=True)
class Steel(Head):
    """One of finitely many ready classifiers, with a certificate of its error.

    Args:
        hypotheses: weights ``[M, C, D + 1]`` of linear classifiers of unit rows, the intercept last, classes sorted;
            ``None`` takes the zero-shot classifiers of the class text. An array does not travel with a model file; the
            chosen one does.
        hypotheses_independent: say that neither hypotheses nor class text were made with the support. It cannot be
            seen from them, and without it there is no certificate.
        scales: logit scales of the zero-shot classifiers; empty takes ``logit_scale`` alone. Each counts in M.
        delta: chance that the certificate does not hold.
        bound: see `handful.core.certificate`.
        search: ``"all"`` evaluates every hypothesis; ``"clusters"`` groups given ones by k-means (their number by the
            silhouette), evaluates the one in the middle of each, and then the members of the best groups.
        top_clusters: how many are the best.

    Attributes (after ``fit``):
        certificate_: see `Certificate`; asking for it raises `BadInput` where its assumptions do not hold.
    """

    key: ClassVar[str] = "steel"
    needs: ClassVar[Needs] = _Needs()  # type: ignore[assignment]  # of a head it depends on what is given
    shapes: ClassVar[Mapping[str, str]] = {
        "weight": "C W",
        "bias": "C",
        "aligned": "",
        "index": "",
        "errors": "",
        "hypotheses": "",
    }

    hypotheses: Any = None
    hypotheses_independent: bool = False
    scales: Sequence[float] = ()
    delta: float = 0.05
    bound: Bound = "binomial"
    search: Literal["all", "clusters"] = "all"
    top_clusters: int = 15

    @property
    def directions(self) -> bool:
        """Only the direction of a row counts."""
        return True

    @property
    def certificate_(self) -> Certificate:
        """Raises `BadInput` where an assumption of the certificate does not hold, naming it."""
        check_is_fitted(self)
        missing = "the certificate is in the card of a model file, not in its head"
        found: Certificate | str = getattr(self, "_certificate", missing)
        if isinstance(found, str):
            raise BadInput(f"no certificate: {found}")
        return found

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """See `Head.fit`; then ``certificate_`` is there, if its assumptions hold."""
        super().fit(X, y, sample_weight)
        labels = np.asarray(y).ravel()
        weight = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        items = read_items(X, len(labels))
        self._certificate = self._certified(labels[weight > 0], weight[weight > 0], items[weight > 0])
        return self

    def _certified(self, labels: np.ndarray, weight: np.ndarray, items: np.ndarray) -> Certificate | str:
        """The certificate, or why there is none."""
        if self.hypotheses_independent is not True:
            return (
                "say hypotheses_independent=True if neither the hypotheses nor the class text were made with these "
                "examples"
            )
        if len(np.unique(weight)) > 1:
            return "examples of different weight are no independent draws: give no sample_weight"
        if len(np.unique(items)) < len(items):
            return "several rows show the same item, so they are no independent draws: give each item once"
        counts = np.unique(labels, return_counts=True)[1]
        return risk_certificate(
            round(float(self.state_["errors"]) / weight[0]),
            len(labels),
            int(self.state_["hypotheses"]),
            self.delta,
            self.bound,
            classes=len(self.classes_),
            balanced=len(np.unique(counts)) == 1,
        )

    def adapt(self, task: Task) -> State:
        """State of the chosen one: ``weight [*b, C, W]`` and ``bias [*b, C]`` (its logit scale is in them), ``errors``
        on the support, ``index`` in the set, ``hypotheses`` (M) and ``aligned`` (which rows it reads), ``[*b]`` each.

        Raises:
            BadInput: a parameter out of range, neither hypotheses nor class text, hypotheses of another shape.
        """
        self._check()
        if self.hypotheses is None:
            return self._choose_text(task)
        every = self._given(task)
        x = unit(task.x)
        x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
        batch = task.labels.shape[:-2]
        looked = torch.arange(len(every), device=x.device)
        allowed = torch.ones(*batch, len(every), dtype=torch.bool, device=x.device)
        if self.search == "clusters" and (groups := clusters(every, task.seed)) is not None:
            middle, member = groups
            errors, _ = _judge(task, _linear(x, every[middle]))
            best = errors.argsort(dim=-1, stable=True)[..., : self.top_clusters]
            allowed = (member == best[..., None]).any(-2)
            looked = allowed.reshape(-1, len(every)).any(0).nonzero()[:, 0]
        errors, loss = _judge(task, _linear(x, every[looked]))
        errors = errors.masked_fill(~allowed[..., looked], torch.inf)
        at, fewest = best_of(errors, loss)
        index = looked[at]
        chosen = every[index]
        return _state(chosen[..., :-1], chosen[..., -1], fewest, index, torch.full_like(fewest, len(every)), False)

    def answer(self, state: State, query: Query) -> Tensor:
        """``w x / |x| + b`` of the chosen one."""
        x = query.views.get("aligned", query.x) if bool(state["aligned"].any()) else query.x
        return unit(x.to(state["weight"].dtype)) @ state["weight"].mT + state["bias"][..., None, :]

    def _choose_text(self, task: Task) -> State:
        """Among templates (their mean first) times scales."""
        if task.text is None:
            raise BadInput("nothing to choose from: give text={label: vectors}, or hypotheses=[M, C, D + 1]")
        x, batch = unit(task.views.get("aligned", task.support).to(task.support.dtype)), task.labels.shape[:-2]
        x = torch.where(task.weight[..., None] > 0, x, 0.0)
        mean, text, mask = task.text.mean[..., None, :], task.text.vectors, task.text.mask
        single = text.shape[-2] == 1
        vectors = (mean if single else torch.cat([mean, text], -2)).to(x.dtype)  # [*b, C, K, Dt]
        vectors = vectors.expand(*batch, *vectors.shape[-3:])
        there = (mask | ~task.class_mask[..., None]).all(-2)  # every class has this template
        there = torch.ones_like(there[..., :1]) if single else torch.cat([torch.ones_like(there[..., :1]), there], -1)
        scales = x.new_tensor(list(self.scales) or [self.logit_scale])
        cosines = torch.einsum("...nd,...ckd->...knc", x, vectors)
        logits = cosines[..., :, None, :, :] * scales[:, None, None]  # [*b, K, S, N, C]
        errors, loss = _judge(task, logits.flatten(-4, -3))
        valid = there.repeat_interleave(len(scales), -1).expand(errors.shape)
        at, fewest = best_of(errors.masked_fill(~valid, torch.inf), loss)
        scale, template = scales[at % len(scales)], at // len(scales)
        index = template[..., None, None, None].expand(*batch, vectors.shape[-3], 1, vectors.shape[-1])
        weight = scale[..., None, None] * vectors.gather(-2, index)[..., 0, :]
        return _state(weight, torch.zeros_like(weight[..., 0]), fewest, at, valid.sum(-1).to(x.dtype), True)

    def _given(self, task: Task) -> Tensor:
        """The hypotheses ``[M, C, D + 1]``."""
        try:
            every = torch.as_tensor(np.asarray(self.hypotheses, dtype=float), dtype=task.support.dtype)
        except (TypeError, ValueError) as error:
            raise BadInput(f"hypotheses must be an array [M, C, D + 1] of numbers ({error})") from error
        wanted = (task.labels.shape[-1], task.support.shape[-1] + 1)
        if every.dim() != 3 or not len(every) or tuple(every.shape[1:]) != wanted:
            raise BadInput(f"hypotheses must have shape [M, {wanted[0]}, {wanted[1]}], not {tuple(every.shape)}")
        if not every.isfinite().all():
            raise BadInput("hypotheses must be finite numbers")
        return every.to(task.support.device)

    def _check(self) -> None:
        one_of("bound", self.bound, BOUNDS)
        one_of("search", self.search, ("all", "clusters"))
        count("top_clusters", self.top_clusters, 1)
        finite("delta", self.delta, above=0, most=1)
        if self.delta >= 1:
            raise BadInput("delta must be below 1")
        if not isinstance(self.scales, (tuple, list)):
            raise BadInput(f"scales is a list of logit scales, () for logit_scale alone, not {self.scales!r}")
        for scale in self.scales:
            finite("scales", scale, above=0)


def clusters(every: Tensor, seed: int) -> tuple[Tensor, Tensor] | None:
    """Which hypothesis is in the middle of each cluster ``[k]``, and the cluster of each ``[M]``; ``None`` for too few.

    k-means on the flat weights; k is the number in `CLUSTERS` with the best silhouette, on at most `JUDGED` of them.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    flat = every.reshape(len(every), -1).double().cpu().numpy()
    found: list[tuple[float, Any]] = []
    for k in (k for k in CLUSTERS if 2 * k <= len(flat)):
        fitted = KMeans(k, n_init=1, random_state=seed).fit(flat)
        if len(np.unique(fitted.labels_)) < k:  # fewer different ones than clusters
            break
        size = JUDGED if len(flat) > JUDGED else None
        found.append((silhouette_score(flat, fitted.labels_, sample_size=size, random_state=seed), fitted))
    if not found:
        return None
    best = max(found, key=lambda pair: pair[0])[1]
    far = np.square(flat - best.cluster_centers_[best.labels_]).sum(1)
    middle = [np.flatnonzero(best.labels_ == c)[far[best.labels_ == c].argmin()] for c in range(best.n_clusters)]
    return torch.as_tensor(np.asarray(middle)).to(every.device), torch.as_tensor(best.labels_).long().to(every.device)


def _linear(x: Tensor, every: Tensor) -> Tensor:
    """Logits ``[*b, M, N, C]`` of rows ``x [*b, N, D + 1]``."""
    return torch.einsum("...nd,mcd->...mnc", x, every)


def _judge(task: Task, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Weight of the rows that each hypothesis gets wrong, and its log loss: ``[*b, M]`` each, of ``[*b, M, N, C]``."""
    logits, y = mask_classes(logits, task.class_mask[..., None, :]), task.y[..., None, :, :]
    right = y.expand(logits.shape).gather(-1, logits.argmax(-1, keepdim=True)).sum((-2, -1))
    loss = -torch.where(y > 0, y * logits.log_softmax(-1), 0.0).sum((-2, -1))
    return task.y.sum((-2, -1))[..., None] - right, loss


def best_of(errors: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
    """Index ``[*b]`` of the fewest errors, ties by the lower loss, and those errors."""
    fewest = errors.amin(-1, keepdim=True)
    tied = errors <= fewest + math.sqrt(torch.finfo(errors.dtype).eps)
    at = torch.where(tied, loss, torch.inf).argmin(-1)
    return at, errors.gather(-1, at[..., None])[..., 0].clamp_min(0)


def _state(weight: Tensor, bias: Tensor, errors: Tensor, index: Tensor, hypotheses: Tensor, aligned: bool) -> State:
    counted = {"errors": errors, "index": index, "hypotheses": hypotheses, "aligned": torch.full_like(index, aligned)}
    return {"weight": weight, "bias": bias, **counted}
