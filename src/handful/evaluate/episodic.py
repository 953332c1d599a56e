"""Episodes: how well a head learns new classes from a few shots, over many drawn tasks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.adapt.base import Features, Head
from handful.adapt.inputs import PLACES, read_background
from handful.core.intervals import Estimate, mean_interval
from handful.errors import BadInput, HandfulError
from handful.evaluate.indices import Count, Episodes
from handful.evaluate.memory import PeakMemory
from handful.evaluate.sampling import draw
from handful.evaluate.tasks import Batch, Pool, class_text
from handful.protocols import Progress

MEMORY, DEVICE_MEMORY = 28 * 2**20, 2 * 2**30
"""Bytes of tensors a chunk of episodes should stay within: on a CPU small chunks are fastest, caches being small."""
SMALL_STEPS = 6
"""So many times as much for heads whose operations are small."""


@dataclass(frozen=True)
class EpisodeResult:
    """What `episodes` finds.

    Attributes:
        accuracy: share of right answers of each episode ``[E]``.
        mean: its mean with Student's 95 % interval over episodes.
        seconds: wall time of gathering, adapting and answering; drawing the episodes is not in it.
        peak_memory: bytes, or ``None`` where it cannot be measured; ``memory_kind`` says what is counted.
        batched: whether the head takes many episodes at once.
        episodes: what was drawn.
    """

    accuracy: np.ndarray
    mean: Estimate
    seconds: float
    peak_memory: int | None
    memory_kind: str | None
    batched: bool
    episodes: Episodes = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without the single episodes."""
        return {
            "episodes": len(self.accuracy),
            "accuracy": self.mean.as_dict(),
            "seconds": self.seconds,
            "peak_memory": self.peak_memory,
            "memory_kind": self.memory_kind,
            "batched": self.batched,
        }


def episodes(
    head: Head,
    X: np.ndarray | Features,
    y: Any,
    *,
    ways: Count = 5,
    shots: Count = 1,
    queries: int = 15,
    episodes: int = 600,
    seed: int = 0,
    base: Any = None,
    text: Mapping[Any, Any] | None = None,
    imbalance: float | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> EpisodeResult:
    """Draw episodes from features and judge a head on them.

    Args:
        head: an unfitted head.
        X: features ``[n, D]``, or `Features` with views.
        y: n labels.
        ways, shots, queries, episodes, seed, imbalance: see `handful.evaluate.sampling.draw`.
        base: features of base classes ``[B, D]``, or ``(features, labels)``, for heads that learn from them.
        text: class text by label, as a head takes it; the head's own when not given.
        chunk: episodes at a time; chosen from the memory they take when not given. Changes nothing but that.

    Raises:
        BadInput: episodes that cannot be drawn (the class is named), or a head that needs more than it is given.
    """
    drawn = draw(y, ways=ways, shots=shots, queries=queries, episodes=episodes, seed=seed, imbalance=imbalance)
    return run(head, X, y, drawn, base=base, text=text, seed=seed, chunk=chunk, progress=progress)


def run(
    head: Head,
    X: np.ndarray | Features,
    y: Any,
    drawn: Episodes,
    *,
    base: Any = None,
    text: Mapping[Any, Any] | None = None,
    seed: int = 0,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> EpisodeResult:
    """Judge a head on episodes that are drawn already; see `episodes`."""
    pool = make_pool(head, X, y, base=base, text=text)
    _check_needs(head, pool, drawn)
    batched = head.needs.batched == "yes"
    step = 1 if not batched else chunk or chunk_size(head, pool, drawn)
    seed = seed if head.random_state is None else head.random_state
    accuracy, start = np.empty(len(drawn)), time.perf_counter()
    with PeakMemory(head.device) as memory:
        for first in range(0, len(drawn), step):
            batch = pool.batch(drawn[first : first + step], seed)
            accuracy[first : first + step] = _judge(head, batch if batched else batch.single(), first).cpu().numpy()
            if progress is not None:
                progress(min(first + step, len(drawn)), len(drawn))
    seconds = time.perf_counter() - start
    mean = mean_interval(accuracy, within=(0.0, 1.0))
    return EpisodeResult(accuracy, mean, seconds, memory.peak, memory.what, batched, drawn)


def make_pool(
    head: Head,
    X: np.ndarray | Features,
    y: Any,
    *,
    base: Any = None,
    text: Mapping[Any, Any] | None = None,
) -> Pool:
    """What episodes are gathered from, on the head's device.

    Raises:
        BadInput: shapes that do not fit, or features that are not finite.
    """
    data = X if isinstance(X, Features) else Features(np.asarray(X), {})
    x = _features(data.x, "features", head.device)
    if len(x) != len(y):
        raise BadInput(f"{len(x)} rows of features but {len(y)} labels")
    background = read_background(head.background if base is None else base, x)
    views = {
        name: torch.as_tensor(view, device=head.device)
        for name, view in data.views.items()
        if name not in PLACES or name in head.needs.views  # those are wide, and gathered for every episode
    }
    text = head.text if text is None else text
    known = None if text is None else class_text(text, np.unique(np.asarray(y)), views.get("aligned", x))
    return Pool(x, views, known, head.logit_scale, background)


def chunk_size(head: Head, pool: Pool, drawn: Episodes) -> int:
    """How many episodes stay within the budget: four copies of their rows, and four square matrices of the smaller of
    their width and four times their support, which is what most heads make."""
    n, q = (int((index >= 0).sum(axis=(1, 2)).max()) for index in (drawn.support, drawn.query))
    width, ways = pool.width, drawn.classes.shape[1]
    numbers = 4 * (n + q) * width + 4 * min(pool.x.shape[1], 4 * n) ** 2 + 4 * (n + q) * (n + ways)
    budget = MEMORY * (SMALL_STEPS if head.small_steps else 1) if pool.x.device.type == "cpu" else DEVICE_MEMORY
    return max(1, int(budget // (pool.x.element_size() * numbers)))


def _judge(head: Head, batch: Batch, first: int) -> Tensor:
    """Accuracy of each episode ``[e]``."""
    logits = head.logits(batch.task)
    if not isinstance(logits, Tensor) or not bool(torch.isfinite(logits).all()):
        raise HandfulError(f"head {head.key!r} gave logits that are not finite, in episode {first} or soon after")
    right = (logits.argmax(-1) == batch.answers) & batch.real
    return right.sum(-1).double() / batch.real.sum(-1)


def _features(x: Any, what: str, device: str) -> Tensor:
    x = np.asarray(x)
    if x.ndim != 2 or x.dtype.kind not in "fiu":
        raise BadInput(f"{what} are numbers [n, d], not {x.dtype} {x.shape}")
    x = x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise BadInput(f"row {int(bad.argmax())} of the {what} is not finite")
    return torch.as_tensor(x, device=device)


def _check_needs(head: Head, pool: Pool, drawn: Episodes) -> None:
    name, needs = f"head {head.key!r}", head.needs
    if needs.text and (pool.text is None or not bool(pool.text.mask.any(-1).all())):
        raise BadInput(f"{name} needs text of every class: labels that are words, --class-names, or text=")
    if needs.background and pool.background is None:
        raise BadInput(f"{name} needs features of base classes: --base, or base=")
    if needs.unlabelled:
        raise BadInput(f"{name} needs unlabelled items, which episodes do not have")
    missing = [view for view in needs.views if view not in pool.views]
    if missing:
        raise BadInput(f"{name} needs the view {missing[0]!r} of the items")
    fewest = int(np.where(drawn.classes >= 0, (drawn.support >= 0).sum(axis=2), drawn.shots).min())
    if fewest < needs.min_shots:
        raise BadInput(f"{name} needs {needs.min_shots} shots a class, but an episode has a class with {fewest}")
