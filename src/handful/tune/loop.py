"""`tune`: the engine. A model, a few labelled items and a recipe in; what was changed about the model out.

Every step draws what it needs (rows, dropout) from the seed and its own number, so that a run that was killed and goes
on from its checkpoint ends as it would have.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handful.core.train import seeded
from handful.errors import BadInput, HandfulError
from handful.protocols import Progress
from handful.tune.average import Averaged
from handful.tune.best import Best
from handful.tune.change import Mode
from handful.tune.checkpoint import Checkpoint
from handful.tune.delta import Delta
from handful.tune.fillers import AsIs, CrossEntropy, Plain, Shuffled
from handful.tune.groups import Group, groups_of, mover
from handful.tune.modes import in_mode, settled
from handful.tune.pace import needed, rate_at, settles, stretches
from handful.tune.recipe import Closures, Data, Readout, Recipe, Sampler, Seen, Stage
from handful.tune.tuned import Tuned


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
    held: Data | None = None,
    judge: Callable[[Tuned], float] | None = None,
    judge_every: int = 100,
    judge_patience: int | None = None,
) -> Tuned:
    """Change ``model`` a little, so that it tells the classes of ``data`` apart.

    Args:
        model: any module that gives features (or logits) for ``data.inputs``; its own parameters and statistics are as
            they were afterwards, bit for bit, its parts in the modes they were in, and only ``delta`` and ``readout``
            learn. Batch normalisations keep the statistics of the base unless `Statistics` is placed at them.
        data: what is learnt from.
        recipe: how. Empty slots: rows in random order, cross-entropy of what the model gives, the plain gradient.
        seed: of every draw.
        mode: how changes are executed; see `Delta.attached`.
        checkpoint: a file to go on from, if it is there, and to write now and then; removed in the end.
        every: seconds between two checkpoints.
        progress: called with (steps done, steps in all).
        told: called with step, steps, loss and seconds left.
        time_limit: seconds after which no further step is taken.
        held: examples that nothing is learnt from, for steps that look at their loss (`Closures`).
        judge: gives a score, such as accuracy on examples held out; the state with the highest is kept, of equal ones
            the first.
        judge_every: steps between two scores; the end of a stage is scored as well.
        judge_patience: end a stage once so many scores in a row were not above the highest; never by default.

    Raises:
        BadInput: the recipe does not fit the model or the data; held-out examples are learnt from too; nothing would
            learn; the checkpoint is another run's.
        HandfulError: the loss is no number any more; the memory does not suffice for a single item.
    """
    if not recipe.stages:
        raise BadInput("the recipe has no stage, so that nothing would be learnt")
    if judge_every < 1:
        raise BadInput(f"a score is taken every 1 steps or more, not every {judge_every}")
    if held is not None and (shared := data.shared(held)):
        raise BadInput(f"{shared} of the {len(held)} held-out examples are among those learnt from; take others")
    if held is not None and held.targets.shape[1:] != data.targets.shape[1:]:
        raise BadInput(f"the held-out examples have {len(held.classes)} classes, the others {len(data.classes)}")
    if held is not None and held.classes != data.classes:
        here, there = next(pair for pair in zip(data.classes, held.classes, strict=True) if pair[0] != pair[1])
        raise BadInput(f"the held-out examples have a class {there!r} where the others have {here!r}; order them alike")
    generator = torch.Generator().manual_seed(seed)
    frozen = [(p, p.requires_grad) for p in model.parameters()]
    counted = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        for parameter, _ in frozen:
            parameter.requires_grad_(False)
        with in_mode(False, model):
            readout = (recipe.readout or AsIs)()
            readout.begin(model, data, generator)
            delta = Delta.begin(model, recipe.changes, generator)
            run = _Run(model, data, recipe, readout, delta, seed, held)
            if recipe.start is not None:
                recipe.start(delta, model, readout, data, run.loss_of)
            keeper = Checkpoint(None if checkpoint is None else Path(checkpoint), every, run.name)
            losses = run.go(mode, keeper, progress, told, time_limit, judge, judge_every, judge_patience)
        delta.requires_grad_(True)  # a last stage may have left it as it was
    finally:
        for parameter, needed in frozen:
            parameter.requires_grad_(needed)
        for buffer, was in counted:  # a normalisation counts its batches
            buffer.copy_(was)
    return Tuned(model, delta, readout.eval(), data.classes, losses)


class _Run:
    """One call of `tune`."""

    def __init__(
        self, model: nn.Module, data: Data, recipe: Recipe, readout: Readout, delta: Delta, seed: int,
        held: Data | None = None,
    ) -> None:  # fmt: skip
        self.model, self.data, self.recipe, self.readout, self.delta = model, data, recipe, readout, delta
        self.held = held
        self.seed = seed
        self.weight = torch.ones(len(data)) if data.weight is None else data.weight
        self.stage = 0
        self.best: Best | None = None
        self.average = None if recipe.average is None else Averaged(self.modules)
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
        judge: Callable[[Tuned], float] | None, judge_every: int, judge_patience: int | None = None,
    ) -> list[float]:  # fmt: skip
        """All stages; the loss of each step."""
        if judge is not None:
            self.best = Best(self.modules)
        total, done = sum(map(self.steps, self.recipe.stages)), 0
        began = time.monotonic()
        losses: list[float] = []
        for number, stage in enumerate(self.recipe.stages):
            self.stage, steps = number, self.steps(stage)
            groups = groups_of(stage, self.model, self.delta, self.readout) if steps else []
            first, losses = checkpoint.resume(number, self.kept, [g.update for g in groups], losses)
            rows = self.sampler(stage).draws(self.data, stage.batch, torch.Generator().manual_seed(self.seed + number))
            done += min(first, steps)
            if first >= steps:
                continue
            if not first and not needed(stage, losses):
                done += steps
                continue
            if self.best is not None and not first:
                self.best.waited.zero_()  # patience is of a stage
            learning = (self.readout, self.delta, *((self.model,) if stage.dropout else ()))
            drawn, over = enumerate(itertools.islice(rows, first, steps), first), False
            for stretch in stretches(first, steps, judge_every if judge is not None else steps):
                with (
                    torch.enable_grad(),
                    in_mode(True, *learning),
                    self.delta.attached(self.model, mode),
                    in_mode(False, *settled(self.model)),
                ):
                    for at, some in itertools.islice(drawn, stretch):
                        late = time_limit is not None and time.monotonic() - began > time_limit
                        over = late or bool(at and settles(losses[-at:], stage.patience))
                        if over:
                            break
                        rate = rate_at(stage, steps, at)
                        loss = self.one(stage, some, at, steps, groups, rate)
                        losses.append(loss)
                        if self.average is not None and self.recipe.average is not None:
                            self.average.add(self.recipe.average(int(self.average.steps)), self.modules)
                        done += 1
                        if progress is not None:
                            progress(done, total)
                        if told is not None:
                            told(done, total, loss, (time.monotonic() - began) / len(losses) * (total - done))
                        if judge is None or (at + 1) % judge_every:  # a state is kept with its score
                            checkpoint.keep(number, at + 1, self.kept, [g.update for g in groups], losses)
                if self.best is not None and judge is not None:
                    now = Tuned(self.model, self.delta, self.readout, self.data.classes, losses)
                    with nullcontext() if self.average is None else self.average.in_place(self.modules):
                        self.best.offer(judge(now), self.modules)
                    over = over or (judge_patience is not None and int(self.best.waited) >= judge_patience)
                if over:
                    break
            checkpoint.keep(number + 1, 0, self.kept, [], losses)
        if self.best is not None:
            self.best.restore(self.modules)
        elif self.average is not None:
            self.average.write(self.modules)
        checkpoint.remove()
        return losses

    @property
    def name(self) -> str:
        """What tells this run from others: the model's weights, the data, the recipe, the seed."""
        said = repr((self.delta.fingerprint, len(self.data), self.recipe.stages, self.recipe.average, self.seed))
        said += repr([(h.site, h.change) for h in self.delta.holders])
        # Where a function lies in memory is another in the next process, which is to go on with the run.
        digest = hashlib.sha256(re.sub(r" at 0x[0-9a-fA-F]+", "", said).encode())
        digest.update(self.data.targets.numpy().tobytes())
        return digest.hexdigest()

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What learns."""
        return {"delta": self.delta, "readout": self.readout}

    @property
    def kept(self) -> dict[str, nn.Module]:
        """What a checkpoint holds."""
        beside = {"best": self.best, "average": self.average}
        return {**self.modules, **{name: module for name, module in beside.items() if module is not None}}

    def one(self, stage: Stage, rows: Tensor, at: int, steps: int, groups: Sequence[Group], rate: float) -> float:
        """One step on ``rows``; where memory does not suffice, in twice as many parts."""
        parameters = [p for group in groups for p in group.parameters]
        while True:
            try:
                with seeded(_mixed(self.seed, self.stage, at)):
                    closures = self.closures(rows, at, steps)
                    return float((self.recipe.step or Plain())(closures, parameters, mover(groups, rate, stage.clip)))
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

        learns = tuple(p for module in self.modules.values() for p in module.parameters() if p.requires_grad)

        def look(part: Tensor) -> Seen:
            chosen = inputs[part] if isinstance(inputs, Tensor) else [inputs[i] for i in part.tolist()]
            here = rows[part]
            targets, weight = self.data.targets[here], self.weight[here]
            return Seen(self.model, self.readout, here, chosen, targets, weight, at, steps, generator, learns)

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
        every = {**single, "loss": lambda: loss_of(self.objectives)}
        return Closures(every if self.held is None else {**every, "held": lambda: self.held_out(at, steps)}, at, steps)

    @torch.no_grad()
    def held_out(self, at: int, steps: int, batch: int = 64) -> Tensor:
        """The recipe's loss on the held-out examples, outside of training."""
        data = self.held
        assert data is not None
        weight = torch.ones(len(data)) if data.weight is None else data.weight
        total = torch.zeros(())
        with in_mode(False, self.model, self.readout):
            for rows in torch.split(torch.arange(len(data)), batch):
                generator = torch.Generator().manual_seed(self.seed)
                seen = Seen(
                    self.model,
                    self.readout,
                    rows,
                    data.take(rows),
                    data.targets[rows],
                    weight[rows],
                    at,
                    steps,
                    generator,
                )
                total = total + sum(objective(seen) for objective in self.objectives) * (len(rows) / len(data))
        return total

    def loss_of(self, rows: Tensor) -> Tensor:
        """The recipe's loss on some rows, as things stand."""
        return self.closures(rows, 0, 1)["loss"]()


def _mixed(*numbers: int) -> int:
    """One seed of several numbers."""
    return hash(numbers) & 0x7FFFFFFF


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in str(error)
