"""Proto-CLIP-F: image prototypes, and a map of the queries, learnt so that both kinds of prototypes agree.

Paper 060: Jishnu Jaykumar P, Palanisamy, Chao, Du, Xiang, "Proto-CLIP: Vision-Language Prototypical Network for
Few-Shot Learning", 2023. Learnt are a memory V with one row an example, the map g and, if asked, the text memory T:

    a_c = the unit mean of the class' unit rows of V,  t_c = T_c made unit,  q = g(z) made unit
    min  -mean log p(y | q) + InfoNCE(a, t) + InfoNCE(t, a),   p as in `proto_clip`, InfoNCE with temperature 0.1

In every pass the classes come in a random order, 20 to 40 % of them a step; of each, 1 to K - 1 of its examples are
left aside and the others asked. The prototypes are always those of all examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.parameters import count, finite, one_of
from handful.adapt.proto_clip import ProtoCLIP, mixed
from handful.adapt.query_adapters import KINDS, Kind, QueryAdapter
from handful.adapt.two_towers import item_rows, query_rows, text_rows
from handful.core.distances import unit
from handful.core.losses import cross_entropy, real_rows
from handful.core.task import Query, State, Task, places
from handful.core.train import AdamW, cosine, descend
from handful.protocols import Needs

TEMPERATURE = 0.1


@dataclass(eq=False, repr=False, kw_only=True)
class ProtoCLIPF(ProtoCLIP):
    """Proto-CLIP with trained prototypes and a trained map of the queries.

    ``alpha`` and ``beta`` that are searched are searched before training. The reference keeps the pass that is best on
    a validation set; here it is the last one. Its variant that asks augmented images is this one with those as further
    rows of the support.

    Args:
        adapter: the map, see `query_adapters`.
        train_text: learn the text memory too.
        epochs: passes, 2000 in the reference; for ImageNet it found 200 enough.
        lr: of AdamW (epsilon 1e-4, decay 0.05), all but constant.
    """

    key: ClassVar[str] = "proto-clip-f"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {
        "prototypes": "C T",
        "words": "C T",
        "adapter": "P",
        "real": "C",
        "alpha": "",
        "beta": "",
    }

    adapter: Kind = "fc"
    train_text: bool = False
    epochs: int = 2000
    lr: float = 1e-4

    def adapt(self, task: Task) -> State:
        """State: unit ``prototypes, words [*b, C, D]``, ``adapter [*b, P]``, ``real [*b, C]``, ``alpha, beta [*b]``."""
        one_of("adapter", self.adapter, KINDS)
        count("epochs", self.epochs)
        finite("lr", self.lr, above=0)
        alpha, beta = self._strengths(task)
        x, text = item_rows(task), text_rows(task)
        adapter, real = QueryAdapter(self.adapter, x.shape[-1]), task.class_mask

        def losses(parameters: list[Tensor], asked: Tensor) -> Tensor:
            memory, weights, words = [*parameters, text][:3]
            a, t, q = unit(task.y.mT @ unit(memory)), unit(words), unit(adapter(weights, x))
            log_p = mixed(q @ a.mT, q @ t.mT, alpha[..., None, None], beta[..., None, None], real)
            ask = torch.where(asked[..., None], task.y, 0.0)
            return cross_entropy(log_p, ask, real) + aligned(a, t, real) + aligned(t, a, real)

        weights = adapter.start(task.seed).to(x).expand(*x.shape[:-2], -1)
        rows = len(real_rows(task))
        steps = list(questions(task, self.epochs))
        rates = cosine(self.lr, max(1, rows * len(steps)))  # as coded: not one cosine, but the start of a very long one
        start = [x, weights, text] if self.train_text else [x, weights]
        memory, weights, words = [*descend(start, losses, steps, rates, AdamW(1e-4, 0.05)), text][:3]
        prototypes = unit(task.y.mT @ unit(memory))
        return {
            "prototypes": prototypes,
            "words": unit(words),
            "adapter": weights,
            "real": real,
            "alpha": alpha,
            "beta": beta,
        }

    def answer(self, state: State, query: Query) -> Tensor:
        """``log p``."""
        x = query_rows(query)
        q = unit(QueryAdapter(self.adapter, x.shape[-1])(state["adapter"], x))
        image, text = q @ state["prototypes"].mT, q @ state["words"].mT
        return mixed(image, text, state["alpha"][..., None, None], state["beta"][..., None, None], state["real"])

    def leave_one_out(self, task: Task) -> Tensor | None:
        """A trained memory knows every row: resample instead."""
        return None


def aligned(a: Tensor, b: Tensor, real: Tensor) -> Tensor:
    """InfoNCE ``[*b]``: how well unit rows ``a [*b, C, D]`` find the row of ``b`` of their own class."""
    own = torch.diag_embed(real.to(a.dtype))
    return cross_entropy(a @ b.mT / TEMPERATURE, own, real)


def questions(task: Task, epochs: int) -> Iterator[Tensor]:
    """For every step, which rows are asked ``[*b, N]``.

    What is drawn for a class or a row depends on the seed and its place only, so that padding changes nothing.
    """
    seeds = torch.randint(2**62, (4,), generator=torch.Generator().manual_seed(task.seed)).tolist()
    by_class, by_aside, by_row, by_step = (torch.Generator().manual_seed(seed) for seed in seeds)
    n, c = task.labels.shape[-2:]
    orders, asides = _uniform(c, epochs, by_class), _uniform(c, epochs, by_aside)
    for order, aside, row in zip(orders.mT, asides.mT, _uniform(n, epochs, by_row).mT, strict=True):
        asked = _left_over(task, row, aside)
        place = torch.where(task.class_mask, places(order, task.class_mask) / task.ways[..., None], 2.0)
        own = place.gather(-1, _labels(task))
        low = 0.0
        while low < 1:
            high = low + 0.2 + 0.2 * float(torch.rand((), generator=by_step))
            yield asked & (own >= low) & (own < high)
            low = high


def _uniform(n: int, epochs: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, epochs, generator=generator, dtype=torch.float64)


def _left_over(task: Task, order: Tensor, aside: Tensor) -> Tensor:
    """Which rows ``[*b, N]`` are asked when 1 to K - 1 of every class are put aside; an only one is asked."""
    label, real = _labels(task), task.weight > 0
    place = places(label + order, real)
    shots = (torch.nn.functional.one_hot(label, task.labels.shape[-1]) * real[..., None]).sum(-2)
    first = shots.cumsum(-1) - shots
    keep = torch.where(shots > 1, 1 + (aside * (shots - 1)).long(), 0)
    return real & (place - first.gather(-1, label) >= keep.gather(-1, label))


def _labels(task: Task) -> Tensor:
    return task.y.argmax(-1)
