"""What the layers of a language model make of queries under several templates (080): alike, or as they are worded?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from sklearn.metrics import silhouette_score
from torch.nn import functional

from handful.core.alignment import linear_cka
from handful.encode.lm import LanguageModel
from handful.errors import BadInput


@torch.no_grad()
def states_of(model: LanguageModel, prompts: Sequence[Sequence[str]], batch: int = 16) -> torch.Tensor:
    """States of each layer at the last token ``[T, layers + 1, n, d]`` of T times n prompts.

    Raises:
        BadInput: a state is not finite; there are no prompts, or not as many under each template.
    """
    if not prompts or not prompts[0] or len({len(some) for some in prompts}) > 1:
        raise BadInput("prompts are the same n queries under each of T templates: at least one of both")
    out = []
    for some in prompts:
        asked = [model.prompt(one) for one in some]
        out.append(torch.cat([model.tower.layers(asked[at : at + batch]) for at in range(0, len(asked), batch)], dim=1))
    found = torch.stack(out)
    if not bool(torch.isfinite(found).all()):
        raise BadInput(f"states of {model.name!r} are not finite; its weights are broken, or too large for float32")
    return found


def stability(states: torch.Tensor, meaning: Sequence[str]) -> list[dict[str, float]]:
    """A row a layer: how alike states are under two templates, and by what they cluster.

    Args:
        states: ``[T, layers, n, d]``.
        meaning: what each query is about ``[n]``, such as its task and class.

    Returns:
        ``cosine`` and ``cka``, means over pairs of templates; ``by_meaning`` and ``by_template``, silhouettes. High by
        meaning and low by template is abstract and stable.
    """
    many, layers, n, _ = states.shape
    if many < 2:
        raise BadInput("with one template there is no stability to be seen; give two at least")
    if len(meaning) != states.shape[2]:
        raise BadInput(f"{len(meaning)} meanings of {states.shape[2]} queries: one each")
    rows = []
    for layer in range(layers):
        each = states[:, layer]
        pairs = list(combinations(range(many), 2))
        cosine = [functional.cosine_similarity(each[a], each[b], dim=-1).mean() for a, b in pairs]
        cka = [linear_cka(each[a], each[b]) for a, b in pairs]
        flat = each.reshape(many * n, -1).double().numpy()
        rows.append(
            {
                "layer": layer, "cosine": float(torch.stack(cosine).mean()),
                "cka": float(torch.stack(cka).nanmean()),
                "by_meaning": silhouette(flat, list(meaning) * many),
                "by_template": silhouette(flat, [str(t) for t in range(many) for _ in range(n)]),
            }
        )  # fmt: skip
    return rows


def silhouette(vectors: np.ndarray, groups: Sequence[str]) -> float:
    """Do ``vectors [n, d]`` cluster by n groups? The mean over items of (b - a) / max(a, b), Rousseeuw (1987).

    a is the mean distance to the others of the item's group, b the least mean distance to another group: 1 is apart, 0
    mixed. NaN where there is one group alone, or each item is one.
    """
    many = len(set(groups))
    if not 2 <= many < len(groups):
        return float("nan")
    return float(silhouette_score(vectors, np.asarray(groups)))
