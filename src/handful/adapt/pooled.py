"""What unlabelled items add to `handful.adapt.auto`: class means that take them in, by what it makes of them itself.

With L the logits that ``auto`` learns from the labelled examples, softmax(L) being calibrated probabilities:

    z = unit(unit(x) - m),  m the mean of the unit pool
    p_u = softmax(L(u))  of each of the U items u of the pool
    repeat STEPS times:
        c_k = unit(sum_n y_nk z_n + sum_u p_uk z_u)
        p_u = softmax(L(u) + g z_u c_k),  g = PULL U / (U + N)
    logits(q) = keep L(q) + gain z_q c_k

An item goes to whatever class it is like: nothing is assumed of how often a class occurs in the pool. With l0 and l1
the log losses of the N examples left out, of t0 L and of t1 (L + g z c_k) without the example in c_k, t0 and t1 the
best spreads:

    w = 1 / (1 + exp(N (l1 - l0))),  keep = (1 - w) t0 + w t1,  gain = w t1 g

Where most classes have one example nothing can be left out: the pool is trusted (w = 1, t1 = `BLIND_SPREAD`) unless
there are two classes only and no names that the examples confirm: two examples and a pool that falls into other parts
than the two classes (the topics of reviews, where their tone is asked for) are worse than two examples. All is final
when the head is fitted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from handful.core.calibration import fit_scale, hedged
from handful.core.distances import unit
from handful.core.task import Query, State, Task, mask_classes

PULL = 10.0
"""How much a class mean counts beside the logits. Of 7, 10 and 14, tried on five sets, more gains more where the pool
is like what is asked, and loses more where it is not."""
STEPS = 5
BLIND_SPREAD = 0.7


def pool_state(task: Task, pool: Query, logits: Tensor, left_out: Tensor, y: Tensor, blind: Tensor) -> State:
    """What the pool adds to the state: ``pool.center [*b, D]``, ``pool.mean [*b, C, D]``, ``pool.keep``, ``pool.gain``,
    ``pool.share`` (w) and ``pool.size`` ``[*b]``.

    Args:
        task: the examples.
        pool, logits: the unlabelled items and L of them ``[*b, U, C]``.
        left_out: L of each example left out ``[*b, N, C]``.
        y: labels times weights of the examples that can be judged ``[*b, N, C]``.
        blind: whether too few can ``[*b]``; w is 1 then.
    """
    batch, size = logits.shape[:-2], logits.shape[-2]
    center = unit(pool.x).mean(-2).expand(*batch, -1)
    pull = PULL * size / (size + task.y.sum((-2, -1)))
    rows, z = _placed(task.x, center), _placed(pool.x, center)
    known, p = task.y.mT @ rows, mask_classes(logits, task.class_mask).softmax(-1)
    for _ in range(STEPS):
        total = known + p.mT @ z
        p = mask_classes(logits + pull[..., None, None] * z @ unit(total).mT, task.class_mask).softmax(-1)
    total = known + p.mT @ z
    moved = left_out + pull[..., None, None] * _without_own(rows, total, task.y)
    target = hedged(y, task.class_mask)
    (t0, before), (t1, after) = (
        fit_scale(mask_classes(each, task.class_mask), target, task.class_mask) for each in (left_out, moved)
    )
    share = torch.where(blind, 1.0, torch.sigmoid(y.sum((-2, -1)) * (before - after)))
    t0, t1 = torch.where(blind, 1.0, t0), torch.where(blind, BLIND_SPREAD, t1)
    return {
        "pool.center": center,
        "pool.mean": unit(total),
        "pool.keep": (1 - share) * t0 + share * t1,
        "pool.gain": share * t1 * pull,
        "pool.share": share,
        "pool.size": torch.full_like(share, size),
    }


def unused(state: State, where: Tensor) -> State:
    """What `pool_state` adds, without effect ``where [*b]``."""
    none = {"pool.keep": 1.0, "pool.gain": 0.0, "pool.share": 0.0}
    return {name: torch.where(where, none[name], value) if name in none else value for name, value in state.items()}


def with_pool(state: State, x: Tensor, logits: Tensor) -> Tensor:
    """``keep L + gain z c_k`` of rows ``x [*b, n, D]`` and their ``logits [*b, n, C]``; the same without a pool."""
    if "pool.mean" not in state:
        return logits
    pulled = _placed(x, state["pool.center"]) @ state["pool.mean"].mT
    return state["pool.keep"][..., None, None] * logits + state["pool.gain"][..., None, None] * pulled


def _placed(x: Tensor, center: Tensor) -> Tensor:
    real = x.square().sum(-1, keepdim=True) > 0  # padding is zero
    return torch.where(real, unit(unit(x) - center[..., None, :]), 0.0)


def _without_own(rows: Tensor, total: Tensor, y: Tensor) -> Tensor:
    """``z_n c_k`` ``[*b, N, C]`` of unit ``rows [*b, N, D]``, the row itself taken out of the sums ``[*b, C, D]``."""
    across = rows @ total.mT
    length = total.square().sum(-1)[..., None, :] - 2 * y * across + y.square()
    return (across - y * rows.square().sum(-1, keepdim=True)) / length.clamp_min(1e-12).sqrt()
