"""Proto-CLIP from memories that are there already, and how it does on data of another distribution.

Paper 060: Jishnu Jaykumar P, Palanisamy, Chao, Du, Xiang, "Proto-CLIP: Vision-Language Prototypical Network for
Few-Shot Learning", 2023; what the authors publish are a visual memory, a text memory and the weights of a query
adapter, which their toolkit tries on ImageNet-V2 and ImageNet-Sketch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.packed import pack
from handful.adapt.parameters import finite, one_of
from handful.adapt.proto_clip_f import ProtoCLIPF
from handful.adapt.query_adapters import KINDS, Kind, QueryAdapter
from handful.core.distances import unit
from handful.errors import BadInput

NAMES: Mapping[Kind, tuple[str, ...]] = {
    "fc": ("fc.0.weight", "fc.1.weight", "fc.1.bias", "fc.2.weight", "fc.3.weight", "fc.3.bias"),
    "conv-2x": tuple(part for i in (1, 3) for part in (f"conv{i}.weight", f"bn{i}.weight", f"bn{i}.bias")),
    "conv-3x": tuple(part for i in (1, 2, 3) for part in (f"conv{i}.weight", f"bn{i}.weight", f"bn{i}.bias")),
}
"""Tensors of the authors' adapters, in the order of `QueryAdapter.sizes`."""


def from_memory(
    visual: Any,
    text: Any,
    adapter: Mapping[str, Any],
    *,
    kind: Kind,
    alpha: float,
    beta: float,
    classes: Sequence[Any] | None = None,
) -> ProtoCLIPF:
    """A fitted `ProtoCLIPF`, nothing being trained.

    Args:
        visual: visual memory ``[C K, D]``, K rows a class, class by class.
        text: text memory ``[C, D]``.
        adapter: tensors of the query adapter by the names of the authors' module.
        kind: of the adapter.
        alpha: share of the image prototypes, 0 to 1.
        beta: sharpness.
        classes: their labels, in the order of the memories; ``0 ... C - 1`` where none are given.

    Raises:
        BadInput: memories or adapter that do not fit together, numbers that are not finite.
    """
    one_of("kind", kind, KINDS)
    finite("alpha", alpha, least=0, most=1)
    finite("beta", beta, least=0)
    v, t = _table("visual", visual), _table("text", text)
    c, d = t.shape
    if c < 2 or len(v) % c or not len(v) or v.shape[1] != d:
        raise BadInput(f"a visual memory {tuple(v.shape)} is no [C K, D] for a text memory {tuple(t.shape)}")
    labels = np.arange(c) if classes is None else np.asarray(classes)
    if labels.shape != (c,) or len(np.unique(labels)) < c:
        raise BadInput(f"classes must be {c} different labels, one for each row of the text memory")
    order = torch.as_tensor(np.argsort(labels))
    prototypes = unit(unit(v).reshape(c, -1, d).mean(1))
    words = unit(t)[order]
    state = {
        "prototypes": prototypes[order],
        "words": words,
        "adapter": _packed(adapter, kind, d),
        "real": torch.ones(c, dtype=torch.bool),
        "alpha": torch.tensor(float(alpha)),
        "beta": torch.tensor(float(beta)),
        "text": words,
    }
    head = ProtoCLIPF.restore({"adapter": kind, "alpha": alpha, "beta": beta}, labels[order], state, d)
    head.check_state()
    return head


def out_of_distribution(head: Head, sets: Mapping[str, tuple[Any, Any]]) -> dict[str, float]:
    """Accuracy of a fitted head on each of several data sets with its classes, 0 to 1.

    Args:
        head: any head.
        sets: features ``[n, d]`` and n labels by the name of the data set.

    Raises:
        BadInput: a label that is none of the head's classes, naming the set.
    """
    found = {}
    for name, (x, y) in sets.items():
        truth = np.asarray(y)
        strange = np.setdiff1d(truth, head.classes_)
        if len(strange):
            raise BadInput(f"{name}: label {strange[0].item()!r} is none of the classes that were learnt")
        if len(truth) != len(x):
            raise BadInput(f"{name}: {len(x)} rows of features but {len(truth)} labels")
        found[name] = float((np.asarray(head.predict(x)) == truth).mean())
    return found


def _table(name: str, values: Any) -> Tensor:
    table = torch.as_tensor(values).detach().cpu().float()
    if table.dim() != 2 or not bool(table.isfinite().all()) or bool((table.abs().sum(-1) == 0).any()):
        raise BadInput(f"the {name} memory must be a table of finite rows that are not zero, not {tuple(table.shape)}")
    return table


def _packed(adapter: Mapping[str, Any], kind: Kind, width: int) -> Tensor:
    parts = []
    for name, size in zip(NAMES[kind], QueryAdapter(kind, width).sizes, strict=True):
        if name not in adapter:
            raise BadInput(f"an adapter of kind {kind!r} has a tensor {name!r}; this one has {sorted(adapter)}")
        tensor = torch.as_tensor(adapter[name]).detach().cpu().float()
        if [n for n in tensor.shape if n > 1] != [n for n in size if n > 1]:
            raise BadInput(f"the adapter's {name!r} has shape {tuple(tensor.shape)}, not {size}")
        if not bool(tensor.isfinite().all()):
            raise BadInput(f"the adapter's {name!r} has numbers that are not finite")
        parts.append(tensor)
    return pack(parts)
