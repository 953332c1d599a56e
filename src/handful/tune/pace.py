"""How fast, and how long: the rate of a step, where a run is looked at, when it is over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from handful.core.train import cosine
from handful.tune.recipe import Stage


def rate_at(stage: Stage, steps: int, step: int) -> float:
    """Learning rate of a step."""
    warm = round(stage.warmup * steps)
    if step < warm:
        return stage.lr * (step + 1) / warm
    left = max(steps - warm, 1)
    if stage.rate == "cosine":
        return cosine(stage.lr, left, last=stage.last)(step - warm)
    if stage.rate == "linear":
        return stage.last + (stage.lr - stage.last) * (1 - (step - warm) / left)
    if stage.epochs is not None and callable(stage.rate):
        return stage.rate(stage.epochs * step / steps)
    if stage.rate == "halved" and stage.epochs is not None:
        return stage.lr * 0.5 ** int(stage.epochs * step / steps / 5)
    return stage.lr


def stretches(first: int, steps: int, every: int) -> Iterator[int]:
    """How many steps there are from ``first`` to each multiple of ``every``, and to the end."""
    while first < steps:
        yield (here := min(steps - first, every - first % every))
        first += here


def settles(losses: Sequence[float], patience: int | None) -> bool:
    """Whether the last ``patience`` losses are no lower than those before them, in the mean."""
    if patience is None or len(losses) < 2 * patience:
        return False
    return sum(losses[-patience:]) >= sum(losses[-2 * patience : -patience])


def needed(stage: Stage, losses: Sequence[float]) -> bool:
    """Whether a stage is to begin, after steps with such ``losses``."""
    last = losses[-4:]
    return stage.above is None or not last or sum(last) > stage.above * len(last)
