"""Who was among the examples? The likelihood-ratio attack, to audit what a head gives away.

Carlini et al. 2022 (LiRA), as paper 003 runs it: Tobaben et al., "On the Efficacy of Differentially Private Few-shot
Image Classification", 2023. M models each learn from the examples that a coin picked. The statistic of an example by a
model is how sure the model is of its label; each model in turn is the target, the others are the shadows:

    s      = log(p_y + g) - log(sum_(c != y) p_c + g),   g = 1e-45
    score  = log N(s; out_i, sd_out) - log N(s; in_i, sd_in)          small: a member
    in_i   = median of s over the shadows that learnt from example i,  sd_in one for all examples; out_i likewise

An epsilon-delta-private learner keeps, of whatever attack,
``TPR <= min(e^eps FPR + delta, 1 - e^-eps (1 - delta - FPR))`` (Kairouz, Oh and Viswanath 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import norm
from sklearn.metrics import auc, roc_curve

from handful.adapt.base import Head
from handful.core.task import Query, make_task
from handful.errors import BadInput

GUARD = 1e-45
RATES = (0.001, 0.01, 0.1)
"""False positive rates at which the attack is quoted."""
Relation = Literal["add-or-remove", "replace-one"]
Train = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""``train(X [n, d], y [n], inside [M, n]) -> logits [M, n, C]`` of all examples by M models, each of which has learnt
from the rows where ``inside`` is true; ``y`` are codes 0 to C - 1."""


@dataclass(frozen=True)
class AuditReport:
    """How well the attack tells members from others, every pair of example and model counting once.

    Attributes:
        scores: ``[M, n]``, small for members.
        inside: ``[M, n]``, who was one.
        tpr: share of the members found, by the false positive rate (`RATES`) that is paid.
        auc: of members against others; 0.5 is a coin.
        advantage: the largest TPR - FPR.
    """

    scores: np.ndarray
    inside: np.ndarray
    tpr: dict[float, float]
    auc: float
    advantage: float

    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """FPR and TPR ``[k]`` of every threshold."""
        return _rates(self.scores, self.inside)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without the scores."""
        tpr = {f"{rate:g}": value for rate, value in self.tpr.items()}
        models, n = self.inside.shape
        return {"models": models, "n": n, "tpr": tpr, "auc": self.auc, "advantage": self.advantage}


def lira_audit(train: Train, X: Any, y: Any, n_models: int = 257, *, random_state: int = 0) -> AuditReport:
    """Attack what ``train`` learns.

    Args:
        train: see `Train`; `shadow_heads` makes one of a head.
        X: features ``[n, d]``.
        y: labels ``[n]``.
        n_models: M, half of them with and half without an example.
        random_state: of the coins that pick the examples.

    Raises:
        BadInput: fewer than 4 models, features and labels that do not fit together, logits of another shape.
    """
    x, labels = np.asarray(X), np.asarray(y)
    if n_models < 4:
        raise BadInput(f"n_models must be at least 4, so that each model has shadows with and without, not {n_models}")
    if x.ndim != 2 or labels.shape != (len(x),):
        raise BadInput(f"the audit takes features [n, d] and labels [n], not {x.shape} and {labels.shape}")
    codes = np.unique(labels, return_inverse=True)[1]
    inside = np.random.default_rng(random_state).random((n_models, len(x))) < 0.5
    logits = np.asarray(train(x, codes, inside), dtype=np.float64)
    if logits.shape != (n_models, len(x), codes.max() + 1):
        raise BadInput(f"train gave logits {logits.shape}, not {(n_models, len(x), codes.max() + 1)}")
    return judge_scores(lira_scores(lira_statistic(logits, codes), inside), inside)


def shadow_heads(head: Head) -> Train:
    """All models at once, as one batch of tasks of ``head``."""

    def train(X: np.ndarray, y: np.ndarray, inside: np.ndarray) -> np.ndarray:
        x = torch.as_tensor(X).expand(len(inside), *X.shape)
        codes = torch.as_tensor(y, dtype=torch.long).expand(len(inside), -1)
        weight = torch.as_tensor(inside, dtype=x.dtype)
        seed = 0 if head.random_state is None else head.random_state
        task = make_task(x, codes, ways=int(y.max()) + 1, weight=weight, query=Query(x), seed=seed)
        return np.asarray(head.logits(task))

    return train


def lira_statistic(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How sure of the true label: ``log p_y - log(1 - p_y)``, finite at both ends.

    Args:
        logits: ``[..., n, C]``.
        labels: codes ``[n]``.

    Returns:
        ``[..., n]``.
    """
    z = np.asarray(logits, dtype=np.float64)
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    own = np.eye(p.shape[-1], dtype=bool)[np.asarray(labels)]
    true, others = np.where(own, p, 0.0).sum(-1), np.where(own, 0.0, p).sum(-1)
    found: np.ndarray = np.log(true + GUARD) - np.log(others + GUARD)
    return found


def lira_scores(statistic: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Each model's score of each example ``[M, n]``, the other models being its shadows; small for members.

    Args:
        statistic: ``[M, n]``, as `lira_statistic` gives it.
        inside: ``[M, n]``, whether the model learnt from the example.

    Raises:
        BadInput: shapes that differ, fewer than 3 models, a target all of whose shadows are on one side.
    """
    s, inside = np.asarray(statistic, dtype=np.float64), np.asarray(inside, dtype=bool)
    if s.ndim != 2 or s.shape != inside.shape or len(s) < 3:
        raise BadInput(f"the attack takes statistics [M, n] of at least 3 models, not {s.shape} and {inside.shape}")
    total = inside.sum() - inside.sum(1)
    if (total == 0).any() or (total == inside.size - inside.shape[1]).any():
        raise BadInput("the shadows of a model have all learnt from everything, or all from nothing")
    return np.stack([_score(s[i], np.delete(s, i, 0), np.delete(inside, i, 0)) for i in range(len(s))])


def _score(target: np.ndarray, shadows: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """``[n]``: of one target."""
    log_in, log_out = (_log_density(target, np.where(side, shadows, np.nan)) for side in (inside, ~inside))
    out: np.ndarray = log_out - log_in
    return out


def _log_density(target: np.ndarray, known: np.ndarray) -> np.ndarray:
    """By a normal around the median of what is known of each example (NaN is not), with one width for all."""
    nobody = np.isnan(known).all(0)
    centre = np.full(len(target), np.nan)
    centre[~nobody] = np.nanmedian(known[:, ~nobody], axis=0)
    centre[nobody] = np.nanmean(centre)
    width = np.nanstd(known - centre)
    density: np.ndarray = norm.logpdf(target, centre, width + 1e-30)
    return density


def judge_scores(scores: np.ndarray, inside: np.ndarray) -> AuditReport:
    """The numbers of the attack.

    Raises:
        BadInput: scores that are not finite, or only members, or none.
    """
    scores, inside = np.asarray(scores, dtype=np.float64), np.asarray(inside, dtype=bool)
    if scores.shape != inside.shape or not np.isfinite(scores).all():
        raise BadInput("scores must be finite, one for each entry of inside")
    if inside.all() or not inside.any():
        raise BadInput("only members, or none: there is nothing to tell apart")
    fpr, tpr = _rates(scores, inside)
    found = {rate: float(tpr[fpr <= rate].max()) for rate in RATES}
    return AuditReport(scores, inside, found, float(auc(fpr, tpr)), float((tpr - fpr).max()))


def _rates(scores: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FPR and TPR ``[k]`` of "a member is whose score is at most t", for every t, from (0, 0) to (1, 1)."""
    fpr, tpr, _ = roc_curve(inside.ravel(), -scores.ravel(), drop_intermediate=False)
    return fpr, tpr


def dp_bound(fpr: Any, epsilon: float, delta: float, relation: Relation = "add-or-remove") -> np.ndarray:
    """The largest TPR an attack can have at ``fpr`` against an epsilon-delta-private learner.

    Args:
        fpr: any shape.
        epsilon, delta: as counted for neighbours that differ by one example more or less.
        relation: of what the attack tells apart; ``"replace-one"`` turns them into ``2 epsilon`` and
            ``(1 + e^epsilon) delta``.

    Raises:
        BadInput: epsilon below 0 or delta outside 0 to 1.
    """
    if not (epsilon >= 0 and 0 <= delta <= 1):
        raise BadInput(f"epsilon is at least 0 and delta from 0 to 1, not {epsilon} and {delta}")
    if relation not in ("add-or-remove", "replace-one"):
        raise BadInput(f"relation is 'add-or-remove' or 'replace-one', not {relation!r}")
    if relation == "replace-one":
        epsilon, delta = 2 * epsilon, (1 + math.exp(min(epsilon, 700))) * delta
    rate = np.asarray(fpr, dtype=np.float64)
    grow, shrink = math.exp(min(epsilon, 700)), math.exp(-epsilon)
    bound: np.ndarray = np.clip(np.minimum(grow * rate + delta, 1 - shrink * (1 - delta - rate)), 0.0, 1.0)
    return bound
