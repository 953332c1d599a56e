"""The ways of tuning that T-Few is compared with (paper 027, section 3.3), each with its rate and number of steps.

    way = COMPARED["compacter"]
    TFewClassifier(model, [template], way.settings, changes=way.changes, start=way.start).fit(texts, labels, choices)

All learn by T-Few's losses and schedule; prompts without that of wrong answers, as in the authors' settings. A FISH
mask follows from the examples: `fish`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.lm import LanguageModel
from handful.encode.prompt import Question
from handful.errors import BadInput
from handful.tune.adapters import Adapter
from handful.tune.compacter import LowRank, compacter, norms
from handful.tune.delta import Delta, Placed
from handful.tune.front import KEYS, WORDS, AsWords, Prefix, SoftPrompt
from handful.tune.ia3 import Scaling, ia3
from handful.tune.intrinsic import intrinsic
from handful.tune.lora import LoRA
from handful.tune.masked import chosen
from handful.tune.modes import in_mode
from handful.tune.own import Own
from handful.tune.prompting import Ranked, everything
from handful.tune.recipe import Data, Readout, Seen, Start
from handful.tune.sites import LINEAR, Where, as_matrix
from handful.tune.t_few import TFew

Changes = Callable[[Any], tuple[Placed, ...]]


@dataclass(frozen=True)
class Compared:
    """A way of tuning.

    Args:
        changes: what learns, for a language tower.
        settings: of training.
        start: first numbers that follow from the model.
    """

    changes: Changes
    settings: TFew
    start: Start | None = None


@dataclass(frozen=True)
class CommonWords:
    """A soft prompt begins as words drawn from the commonest: fills the slot `start`.

    Args:
        first, last: numbers of the words in the vocabulary, from the first on and before the last; T5's go by how
            common they are.
        seed: of the draw.
    """

    first: int = 3
    last: int = 5003
    seed: int = 0

    def __call__(
        self, delta: Delta, model: nn.Module, readout: Readout, data: Data, loss: Callable[[Any], torch.Tensor]
    ) -> None:
        """See `handful.tune.recipe.Start`."""
        body: Any = model.body
        last = min(self.last, len(body.get_input_embeddings().weight))
        generator = torch.Generator().manual_seed(self.seed)
        most = max((h.change.tokens for h in delta.each() if isinstance(h.change, SoftPrompt)), default=1)
        ids = torch.randint(self.first, last, (most,), generator=generator).tolist()
        AsWords(tuple(ids))(delta, model, readout, data, loss)


def bitfit(model: nn.Module) -> tuple[Placed, ...]:
    """Every bias, and every norm. Raises `BadInput` for a model without biases, such as T5."""
    if not any(name.endswith("bias") for name, _ in model.named_parameters()):
        raise BadInput("the model has no biases to learn; the authors add some to T5: take 'layernorm' instead")
    return (Placed(Own(), Where(LINEAR, "bias"), needed=False), *norms(model))


def low_rank(model: nn.Module) -> tuple[Placed, ...]:
    """LoRA of rank 4 at every map, and every norm."""
    return (Placed(LoRA(4, 1.0), Where(LINEAR)), *norms(model))


def bottlenecks(model: nn.Module) -> tuple[Placed, ...]:
    """A bottleneck behind each feed-forward, and every norm."""
    return compacter(model, attention=False, change=Adapter(reduction=32, begins="normal", std=0.02))


def prompt(model: nn.Module, tokens: int) -> tuple[Placed, ...]:
    """Vectors in front of the words."""
    return (Placed(SoftPrompt(tokens), WORDS),)


def prefix(model: nn.Module, tokens: int = 10, inner: int = 512) -> tuple[Placed, ...]:
    """Keys and values in front of every layer, through a network with ``inner`` units; in a seq2seq model in front of
    those of each of its three attentions, through networks of their own.
    """
    front: Any = model.front
    width = int(front.words.weight.shape[1])
    return (Placed(Prefix(tokens, through=width, inner=inner), KEYS),)


_PROMPT = TFew(lr=0.3, w_ul=0.0, relative=False)
COMPARED: Mapping[str, Compared] = {
    "ia3": Compared(ia3, TFew()),
    "full": Compared(everything, TFew(steps=300, lr=3e-4)),
    "bitfit": Compared(bitfit, TFew(lr=3e-4)),
    "layernorm": Compared(norms, TFew(lr=3e-4)),
    "lora": Compared(low_rank, TFew()),
    "lora-scaling": Compared(lambda model: (Placed(Scaling(), Where(LINEAR)),), TFew()),
    "adapter": Compared(bottlenecks, TFew(steps=500)),
    "low-rank-adapter": Compared(partial(compacter, attention=False, change=LowRank()), TFew(steps=500)),
    "compacter": Compared(compacter, TFew(steps=500)),
    "compacter++": Compared(partial(compacter, attention=False), TFew(steps=500)),
    "prompt-10": Compared(partial(prompt, tokens=10), _PROMPT, CommonWords()),
    "prompt-100": Compared(partial(prompt, tokens=100), _PROMPT, CommonWords()),
    "prefix": Compared(prefix, TFew(lr=1e-2)),
    "said-20k": Compared(partial(intrinsic, dimension=20_000), TFew(steps=3000, lr=3e-2)),
    "said-500k": Compared(partial(intrinsic, dimension=500_000), TFew(steps=3000, lr=3e-2)),
}
"""By name, with the authors' settings."""
FISH = TFew(steps=1500, lr=3e-4, relative=False)
"""The authors' settings of a FISH mask. What is added to chosen numbers begins at 0: steps do not go by its size."""


def fish(
    model: LanguageModel, questions: Sequence[Question], right: Sequence[int], keep: float = 0.002,
    settings: TFew = FISH,
) -> Compared:  # fmt: skip
    """A FISH mask (Sung et al. 2021): of all numbers those learn whose gradients are the largest at the examples.

    A number's score is the mean over the examples of its squared gradient, that of the whole loss of ``settings`` at
    one example, without dropout.

    Args:
        model: as it is before training.
        questions: the examples, see `LanguageModel.questions`.
        right: which answer of each is right, from 0.
        keep: share of all numbers of the model that learn (the paper: 0.002 and 0.0002).
        settings: of training, and of the loss.

    Raises:
        BadInput: no examples; an answer that there is not; ``keep`` leaves nothing to learn.
    """
    ways = max((len(question.answers) for question in questions), default=0)
    if len(questions) != len(right) or not all(0 <= c < len(q.answers) for c, q in zip(right, questions, strict=True)):
        raise BadInput(
            f"{len(questions)} questions of {ways} answers at most, but the right ones are {list(right)[:8]}"
        )
    data = Data(list(questions), functional.one_hot(torch.tensor(list(right), dtype=torch.long), max(ways, 1)).float())
    tower, readout, draw = model.tower, Ranked(settings.length_norm), torch.Generator()
    readout.begin(tower, data, draw)
    leaves = dict(tower.named_parameters())
    needed = [leaf.requires_grad for leaf in leaves.values()]
    scores = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    try:
        for leaf in leaves.values():
            leaf.requires_grad_(True)
        with in_mode(False, tower), torch.enable_grad():
            for row, question in enumerate(questions):
                at = torch.tensor([row])
                seen = Seen(tower, readout, at, [question], data.targets[at], torch.ones(1), 0, 1, draw)
                loss = sum((one(seen) for one in settings.recipe().objectives), torch.zeros(()))
                found = torch.autograd.grad(loss, tuple(leaves.values()), allow_unused=True, materialize_grads=True)
                for score, gradient in zip(scores.values(), found, strict=True):
                    score += gradient.square() / len(data)
    finally:
        for leaf, was in zip(leaves.values(), needed, strict=True):
            leaf.requires_grad_(was)
    changes, start = chosen({name: _as_matrix(tower, name, score) for name, score in scores.items()}, keep)
    return Compared(lambda model: changes, settings, start)


def _as_matrix(model: nn.Module, name: str, score: Tensor) -> Tensor:
    return as_matrix(model.get_submodule(name.rpartition(".")[0]), score)
