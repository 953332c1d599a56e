"""Losses of labels in a tree (203, Hierarchical Verbalizer for Few-Shot Hierarchical Text Classification, 2023).

    levels      sum_l CE(z_l, y_l)                                                   y_l: the label at level l
    chain       q_D = softmax(z_D),  q_l[p] = sum_{children of p} q_{l+1};           sum_{l < D} -log q_l[y_l]
    contrast    S_ij = exp cos(h_i, h_j) of the states at level m;  for every coarser level c
                2^{-a (m - c)} sum_i -log( sum_{j: y_c(j) = y_c(i)} S_ij / sum_j S_ij ),  all over N^2
    total       0.999 levels + 0.001 MLM + chain + 0.01 contrast
    rows        of each level's map: mean input embedding of the words of the label, and, for a parent, the mean of its
                children's rows added, from the leaves up

States ``[N, D, d]`` are those of one mask a level; batches hold every text twice, each with its own dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from handful.core.hierarchy import Hierarchy
from handful.errors import BadInput

Form = Literal["nll", "repo"]


def level_loss(logits: Sequence[Tensor], leaves: Tensor, tree: Hierarchy) -> Tensor:
    """Cross-entropy of each level, summed.

    Args:
        logits: ``[N, C_l]`` of each level, coarse to fine.
        leaves: ``[N]``.
        tree: of the labels.
    """
    each = zip(_checked(logits, tree), tree.gold(leaves), strict=True)
    return torch.stack([functional.cross_entropy(z, y) for z, y in each]).sum()


def chain(leaf_logits: Tensor, tree: Hierarchy) -> list[Tensor]:
    """Probabilities of each level ``[N, C_l]``, coarse to fine: a parent's is the sum of its children's."""
    found = [leaf_logits.softmax(-1)]
    for parent, above in zip(reversed(tree.parents), reversed(tree.levels[:-1]), strict=True):
        parents = found[0].new_zeros(len(leaf_logits), len(above))
        found.insert(0, parents.index_add(1, parent.to(leaf_logits.device), found[0]))
    return found


def chain_loss(leaf_logits: Tensor, leaves: Tensor, tree: Hierarchy, form: Form = "nll") -> Tensor:
    """How well the leaves' probabilities, added up, give the labels above them; 0 for one level.

    Args:
        leaf_logits: ``[N, C_D]``.
        leaves: ``[N]``.
        tree: of the labels.
        form: ``"nll"`` is -log q; ``"repo"`` takes q for logits, as the authors' code does.
    """
    if form not in ("nll", "repo"):
        raise BadInput(f"form is 'nll' or 'repo', not {form!r}")
    total = leaf_logits.new_zeros(())
    for q, y in zip(chain(leaf_logits, tree)[:-1], tree.gold(leaves)[:-1], strict=True):
        # Added up, shares may come out at 0 where they are merely small.
        log_q = q if form == "repo" else q.clamp_min(torch.finfo(q.dtype).tiny).log()
        total = total + (functional.cross_entropy(q, y) if form == "repo" else functional.nll_loss(log_q, y))
    return total


def contrast_loss(states: Tensor, leaves: Tensor, tree: Hierarchy, falls: float = 1.0) -> Tensor:
    """States at a level's mask come closer for texts that share a coarser label.

    Args:
        states: ``[N, D, d]``.
        leaves: ``[N]``.
        tree: of the labels.
        falls: a: a label is worth half as much to the power of a for each level that it is further away.
    """
    n, depth, _ = states.shape
    if depth != tree.depth:
        raise BadInput(f"there are states of {depth} levels, but labels of {tree.depth}")
    gold, total = tree.gold(leaves), states.new_zeros(())
    for m in range(1, depth):
        h = functional.normalize(states[:, m], dim=-1)
        log_s = h @ h.mT
        for c in range(m):
            alike = gold[c][:, None] == gold[c][None]
            near = log_s.masked_fill(~alike, float("-inf")).logsumexp(1)
            total = total + 2.0 ** (-falls * (m - c)) * (log_s.logsumexp(1) - near).sum()
    return total / n**2


def first_rows(names: Sequence[Tensor], tree: Hierarchy) -> list[Tensor]:
    """Rows to begin each level's map with ``[C_l, d]``.

    Args:
        names: of each level, what stands for its labels by themselves ``[C_l, d]``: the mean embedding of their words.
        tree: of the labels.
    """
    rows = list(_checked(names, tree, rows=True))
    for at in range(tree.depth - 2, -1, -1):
        parent, child = tree.parents[at], rows[at + 1]
        added = torch.zeros_like(rows[at]).index_add(0, parent, child)
        many = torch.bincount(parent, minlength=len(rows[at])).to(child)
        rows[at] = rows[at] + added / many[:, None]
    return rows


def level_answers(logits: Sequence[Tensor], tree: Hierarchy, mode: Literal[0, 1, 2] = 0) -> list[Tensor]:
    """The label of each level ``[N]``, coarse to fine; they need not be parents of each other.

    Args:
        logits: ``[N, C_l]`` of each level.
        tree: of the labels.
        mode: 0: each level by itself; 1: the mean probability of the children, from the leaves up; 2: both added.
    """
    if mode not in (0, 1, 2):
        raise BadInput(f"mode is 0, 1 or 2, not {mode!r}")
    p = [z.softmax(-1) for z in _checked(logits, tree)]
    for at in range(tree.depth - 2, -1, -1) if mode else ():
        parent = tree.parents[at]
        many = torch.bincount(parent, minlength=len(tree.levels[at])).to(p[at])
        below = (torch.zeros_like(p[at]).index_add(1, parent, p[at + 1]) / many).softmax(-1)
        p[at] = below if mode == 1 else (below + p[at]).softmax(-1)
    return [some.argmax(-1) for some in p]


def _checked(some: Sequence[Tensor], tree: Hierarchy, rows: bool = False) -> Sequence[Tensor]:
    found, wanted = [t.shape[0 if rows else -1] for t in some], [len(level) for level in tree.levels]
    if found != wanted:
        raise BadInput(f"there are {found} labels a level here, and {wanted} in the hierarchy")
    return some
