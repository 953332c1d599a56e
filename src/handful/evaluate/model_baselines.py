"""What the vectors of fine-tuned models (200, Delta Activations, 2025) are compared with: their weights.

    flattened   everything that learnt, end to end; if asked, its first principal components over all models
    salient     the hundredth of all weights that changed most, as a set; alike by |A and B| / |A or B| (Jaccard)

Both need one architecture and one kind of change, and no probe. What the models answer is `Answers`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from handful.core.merging import flat, largest
from handful.errors import BadInput
from handful.tune.delta import Delta
from handful.tune.zoo import same_kind


def flattened(deltas: Sequence[Delta], components: int | None = None) -> Tensor:
    """A row a model ``[n, d]``, or ``[n, components]``.

    Raises:
        BadInput: fewer than two, or of several kinds; more components than models.
    """
    same_kind(deltas)
    rows: Tensor = torch.stack([flat(dict(delta.named_parameters())) for delta in deltas])
    if components is None:
        return rows
    if not 1 <= components <= min(rows.shape):
        raise BadInput(f"{len(rows)} models have 1 to {min(rows.shape)} components, not {components}")
    u, s, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    scores: Tensor = (u * s)[:, :components]
    return scores


@torch.no_grad()
def weight_change(delta: Delta, model: nn.Module) -> Tensor:
    """By how much each weight at its sites changes ``[d]``. Raises `BadInput` where a change has no weight form."""
    kept = delta.merge(model)
    try:
        moved = {
            f"{site}.{name}": getattr(model.get_submodule(site), name) - was for (site, name), was in kept.kept.items()
        }
    finally:
        kept.undo()
    return flat(moved)


def salient_similarity(deltas: Sequence[Delta], model: nn.Module, share: float = 0.01) -> Tensor:
    """Jaccard similarities ``[n, n]`` of the weights that changed most, a ``share`` of all."""
    same_kind(deltas)
    masks = torch.stack([largest(weight_change(delta, model), share) for delta in deltas]).double()
    both = masks @ masks.mT
    count = masks.sum(1)
    return both / (count[:, None] + count - both)
