"""`tune`: the engine. A model, a few labelled items and a recipe in; what was changed about the model out.

Every step draws what it needs (rows, dropout) from the seed and its own number, so that a run that was killed and goes
on from its checkpoint ends as it would have.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from handful.core.train import Optimiser, cosine, seeded
from handful.errors import BadInput, HandfulError
from handful.protocols import Progress
from handful.tune.change import Mode
from handful.tune.checkpoint import Checkpoint
from handful.tune.delta import Delta, Merged
from handful.tune.fillers import AsIs, CrossEntropy, Plain, Shuffled
from handful.tune.recipe import Closures, Data, Readout, Recipe, Sampler, Seen, Stage
from handful.tune.sites import depths, sites


@dataclass
class Tuned:
    """A model and what was learnt about it.

    Args:
        model: the base, untouched.
        delta: what changes it.
        readout: fitted along with it.
        classes: names of the logits' columns.
        losses: of each step.
    """

    model: nn.Module
    delta: Delta
    readout: Readout
    classes: tuple[str, ...]
    losses: list[float] = field(default_factory=list)

    @property
    def base_fingerprint(self) -> str:
        """Of the weights that were changed."""
        return self.delta.fingerprint

    @torch.no_grad()
    def logits(self, inputs: Any, batch: int = 64, mode: Mode = "branch") -> Tensor:
        """``[n, C]``, as the classes stand in ``classes``."""
        data = Data(inputs, torch.zeros(len(inputs), len(self.classes)), self.classes)
        with self.delta.attached(self.model, mode), _evaluating(self.model, self.readout):
            every = (data.take(torch.arange(at, min(at + batch, len(data)))) for at in range(0, len(data), batch))
            return torch.cat([self.readout(self.readout.look(self.model, some), self.model) for some in every])

    def merge(self) -> Merged:
        """Write the changes into the model's weights; ``.undo()`` of the answer takes them out again."""
        return self.delta.merge(self.model)


def tune(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    *,
    seed: int = 0,
    mode: Mode = "branch",
    checkpoint: str | Path | None = None,
    every: float = 60.0,
    progress: Progress | None = None,
    told: Callable[[int, int, float, float], None] | None = None,
    time_limit: float | None = None,
) -> Tuned:
    """Change ``model`` a little, so that it tells the classes of ``data`` apart.

    Args:
        model: any module that gives features (or logits) for ``data.inputs``; its own parameters and statistics are as
            they were afterwards, bit for bit, and only ``delta`` and ``readout`` learn. Batch normalisations keep the
            statistics of the base unless `Statistics` is placed at them.
        data: what is learnt from.
        recipe: how. Empty slots: rows in random order, cross-entropy of what the model gives, the plain gradient.
        seed: of every draw.
        mode: how changes are executed; see `Delta.attached`.
        checkpoint: a file to go on from, if it is there, and to write now and then; removed in the end.
        every: seconds between two checkpoints.
        progress: called with (steps done, steps in all).
        told: called with step, steps, loss and seconds left.
        time_limit: seconds after which no further step is taken.

    Raises:
        BadInput: the recipe does not fit the model or the data; nothing would learn; the checkpoint is another run's.
        HandfulError: the loss is no number any more; the memory does not suffice for a single item.
    """
    if not recipe.stages:
        raise BadInput("the recipe has no stage, so that nothing would be learnt")
    generator = torch.Generator().manual_seed(seed)
    frozen = [(p, p.requires_grad) for p in model.parameters()]
    counted = [(buffer, buffer.clone()) for buffer in model.buffers()]
    was_training = model.training
    try:
        for parameter, _ in frozen:
            parameter.requires_grad_(False)
        model.eval()
        readout = (recipe.readout or AsIs)()
        readout.begin(model, data, generator)
        delta = Delta.begin(model, recipe.changes, generator)
        run = _Run(model, data, recipe, readout, delta, seed)
        if recipe.start is not None:
            recipe.start(delta, model, readout, data, run.loss_of)
        keeper = Checkpoint(None if checkpoint is None else Path(checkpoint), every, run.name)
        losses = run.go(mode, keeper, progress, told, time_limit)
        delta.requires_grad_(True)  # a last stage may have left it as it was
    finally:
        for parameter, needed in frozen:
            parameter.requires_grad_(needed)
        for buffer, was in counted:  # a normalisation counts its batches
            buffer.copy_(was)
        model.train(was_training)
    return Tuned(model, delta, readout.eval(), data.classes, losses)


@dataclass
class _Group:
    """Parameters that take their steps together: with one optimiser, at ``factor`` times the rate."""

    parameters: list[Tensor]
    update: Optimiser
    factor: float


class _Run:
    """One call of `tune`."""

    def __init__(self, model: nn.Module, data: Data, recipe: Recipe, readout: Readout, delta: Delta, seed: int) -> None:
        self.model, self.data, self.recipe, self.readout, self.delta = model, data, recipe, readout, delta
        self.seed = seed
        self.weight = torch.ones(len(data)) if data.weight is None else data.weight
        self.stage = 0
        self.parts = 1  # a batch is taken in so many, once memory has not sufficed for it whole

    @property
    def objectives(self) -> Sequence[Any]:
        """Of the stage it is in."""
        return self.recipe.stages[self.stage].objectives or self.recipe.objectives or (CrossEntropy(),)

    def sampler(self, stage: Stage) -> Sampler:
        """Which rows the steps of a stage see."""
        return stage.sampler or self.recipe.sampler or Shuffled()

    def steps(self, stage: Stage) -> int:
        """How many steps a stage has."""
        if stage.steps is not None:
            return stage.steps
        assert stage.epochs is not None
        return self.sampler(stage).steps(self.data, stage.epochs, stage.batch)

    def go(
        self, mode: Mode, checkpoint: Checkpoint, progress: Progress | None,
        told: Callable[[int, int, float, float], None] | None, time_limit: float | None,
    ) -> list[float]:  # fmt: skip
        """All stages; the loss of each step."""
        total, done = sum(map(self.steps, self.recipe.stages)), 0
        began = time.monotonic()
        losses: list[float] = []
        for number, stage in enumerate(self.recipe.stages):
            self.stage, steps = number, self.steps(stage)
            groups = self.groups(stage)
            first, losses = checkpoint.resume(number, self.modules, [g.update for g in groups], losses)
            rows = self.sampler(stage).draws(self.data, stage.batch, torch.Generator().manual_seed(self.seed + number))
            done += min(first, steps)
            if first >= steps:
                continue
            learning = (self.readout, self.delta, *((self.model,) if stage.dropout else ()))
            with (
                torch.enable_grad(),
                _training(*learning),
                self.delta.attached(self.model, mode),
                _in_mode(False, *_settled(self.model)),
            ):
                for at, some in enumerate(itertools.islice(rows, first, steps), first):
                    if time_limit is not None and time.monotonic() - began > time_limit:
                        break
                    rate = rate_at(stage, steps, at)
                    loss = self.one(stage, some, at, steps, groups, rate)
                    losses.append(loss)
                    done += 1
                    if progress is not None:
                        progress(done, total)
                    if told is not None:
                        told(done, total, loss, (time.monotonic() - began) / len(losses) * (total - done))
                    checkpoint.keep(number, at + 1, self.modules, [g.update for g in groups], losses)
            checkpoint.keep(number + 1, 0, self.modules, [], losses)
        checkpoint.remove()
        return losses

    @property
    def name(self) -> str:
        """What tells this run from others: the model's weights, the data, the recipe, the seed."""
        digest = hashlib.sha256(repr((self.delta.fingerprint, len(self.data), self.recipe.stages, self.seed)).encode())
        digest.update(self.data.targets.numpy().tobytes())
        digest.update(repr([(h.site, h.change) for h in self.delta.holders]).encode())
        return digest.hexdigest()

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What learns."""
        return {"delta": self.delta, "readout": self.readout}

    def groups(self, stage: Stage) -> list[_Group]:
        """What learns in a stage, by what its steps have in common."""
        out: list[_Group] = []
        for part, module in self.modules.items():
            lr = stage.readout_lr if part == "readout" and stage.readout_lr is not None else stage.lr
            learns = part in stage.trains
            for parameter in module.parameters():
                parameter.requires_grad_(learns)
            if learns:
                factor = lr / stage.lr if stage.lr else 1.0
                depth = self.depths(stage.block_decay) if part == "delta" else {}
                update = (part == "readout" and stage.readout_update) or stage.update
                for (decay, slower), some in _alike(module, stage.weight_decay, depth).items():
                    out.append(_Group(some, update(decay), factor * slower))
        if not out:
            raise BadInput("nothing would learn: no change of the model, and a readout without numbers")
        return out

    def depths(self, decay: float) -> dict[int, float]:
        """By parameter of the delta, the factor of its rate: ``decay`` to the power of how far below the head it is."""
        if decay == 1:
            return {}
        every = {site.name: site for site in sites(self.model)}
        blocks, found = depths(every.values()), dict[int, float]()
        for holder in self.delta.each():
            site = every[holder.site]
            # What has no block lies below all (embeddings), or above (a projection).
            above = 0 if site.role == "projection" else blocks[site.tower] - (-1 if site.block is None else site.block)
            found |= {id(p): decay**above for p in holder.parameters()}
        return found

    def one(self, stage: Stage, rows: Tensor, at: int, steps: int, groups: Sequence[_Group], rate: float) -> float:
        """One step on ``rows``; where memory does not suffice, in twice as many parts."""
        parameters = [p for group in groups for p in group.parameters]
        while True:
            try:
                with seeded(_mixed(self.seed, self.stage, at)):
                    closures = self.closures(rows, at, steps)
                    return float((self.recipe.step or Plain())(closures, parameters, _mover(groups, rate, stage.clip)))
            except (RuntimeError, MemoryError) as error:
                if not _is_memory(error):
                    raise
                if self.parts >= len(rows):
                    raise HandfulError("the memory does not suffice for a single item; take a smaller model") from error
                self.parts *= 2

    def closures(self, rows: Tensor, at: int, steps: int) -> Closures:
        """See `Closures`; a batch in parts is the mean over them by size."""
        generator = torch.Generator().manual_seed(_mixed(self.seed, self.stage, at))
        inputs = self.data.take(rows)
        for augment in self.recipe.augment:
            inputs = augment(inputs, rows, generator)

        def look(part: Tensor) -> Seen:
            chosen = inputs[part] if isinstance(inputs, Tensor) else [inputs[i] for i in part.tolist()]
            here = rows[part]
            targets, weight = self.data.targets[here], self.weight[here]
            return Seen(self.model, self.readout, here, chosen, targets, weight, at, steps, generator)

        places = torch.arange(len(rows)).tensor_split(min(self.parts, len(rows)))

        def loss_of(objectives: Sequence[Any]) -> Tensor:
            total = torch.zeros(())
            for part in places:
                seen = look(part)
                total = total + sum(objective(seen) for objective in objectives) * (len(part) / len(rows))
            if not bool(torch.isfinite(total)):  # before any number is moved
                where = f"at step {at + 1} of {steps}, on rows {rows.tolist()[:8]}"
                raise HandfulError(
                    f"the loss is {float(total.detach())} {where}: lower the learning rate, or look at them"
                )
            return total

        single = {o.name: (lambda o=o: loss_of([o])) for o in self.objectives}
        return {**single, "loss": lambda: loss_of(self.objectives)}

    def loss_of(self, rows: Tensor) -> Tensor:
        """The recipe's loss on some rows, as things stand."""
        return self.closures(rows, 0, 1)["loss"]()


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
    if stage.rate == "halved" and stage.epochs is not None:
        return stage.lr * 0.5 ** int(stage.epochs * step / steps / 5)
    return stage.lr


def _alike(
    module: nn.Module, weight_decay: float, slower: Mapping[int, float]
) -> dict[tuple[float, float], list[Tensor]]:
    """The parameters by their decay, of which vectors have none, and the factor of their rate."""
    out: dict[tuple[float, float], list[Tensor]] = {}
    for parameter in module.parameters():
        decay = weight_decay if parameter.dim() > 1 else 0.0
        out.setdefault((decay, slower.get(id(parameter), 1.0)), []).append(parameter)
    return out


def _mover(groups: Sequence[_Group], rate: float, clip: float | None) -> Callable[[Sequence[Tensor]], None]:
    @torch.no_grad()
    def move(gradients: Sequence[Tensor]) -> None:
        if clip is not None:
            length = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
            gradients = [g * (clip / length.clamp_min(clip)) for g in gradients]
        left = iter(gradients)
        for group in groups:
            some = tuple(itertools.islice(left, len(group.parameters)))
            group.update([p.data for p in group.parameters], some, rate * group.factor)

    return move


def _mixed(*numbers: int) -> int:
    """One seed of several numbers."""
    return hash(numbers) & 0x7FFFFFFF


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in str(error)


def _settled(model: nn.Module) -> list[nn.Module]:
    """Normalisations that keep the statistics of the base: all whose statistics are not changed by a delta."""
    return [
        module
        for module in model.modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
        and not parametrize.is_parametrized(module, "running_mean")
    ]


@contextmanager
def _training(*modules: nn.Module) -> Iterator[None]:
    with _in_mode(True, *modules):
        yield


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    with _in_mode(False, *modules):
        yield


@contextmanager
def _in_mode(training: bool, *modules: nn.Module) -> Iterator[None]:
    was = [module.training for module in modules]
    for module in modules:
        module.train(training)
    try:
        yield
    finally:
        for module, before in zip(modules, was, strict=True):
            module.train(before)
