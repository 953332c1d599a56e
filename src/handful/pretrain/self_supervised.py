"""Self-supervised training for learning in context (paper 109, Chen et al., Improving In-Context Few-Shot Learning via
Self-Supervised Training, 2022): a causal model gets better at learning from the examples in its prompt, of raw text.

    instance   Input: x_1          one objective an instance, as many examples as fit; what stands before an
               Output: y_1         example is its demonstrations
               Input: x_2 …
    loss       mean of -log p over the tokens of y_1, y_2, …

The objectives are those of `handful.pretrain.blocks`, in equal parts. `plain` makes the rows of the control that is
trained on the same text as it is (ExtraLM); the one that is trained on other tasks with labels (CrossTask) is
`Instruct` on examples with examples shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from handful.adapt.parameters import count
from handful.core.train import AdamW
from handful.encode.lm import LanguageModel
from handful.encode.prompt import continuation
from handful.encode.rows import Row, chained
from handful.errors import BadInput, nearest
from handful.pretrain.blocks import CORRUPT, NAMES, Block, blocks_of, corrupted, lpp, mwp, nsg
from handful.pretrain.examples import Example, Framing
from handful.pretrain.instruct import Instruct
from handful.protocols import Progress
from handful.tune.delta import Placed
from handful.tune.lora import LoRA
from handful.tune.sites import LINEAR, Where
from handful.tune.tuned import Tuned

OBJECTIVES = ("nsg", "mwp", "lpp", "clf")
Pair = tuple[str, str]


@dataclass(frozen=True)
class Instance:
    """Examples of one objective that share a context.

    Args:
        objective: which.
        pairs: what is given and what is wanted, in order.
        kinds: of the texts of ``"clf"``, see `corrupted`; of others empty.
    """

    objective: str
    pairs: tuple[Pair, ...]
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """What was made of documents.

    Args:
        instances, rows: one for one.
        left_out: how much was not used, by why: ``"short document"``, ``"has a sign"``, ``"too long"``, ``"alone"``.
    """

    instances: tuple[Instance, ...]
    rows: tuple[Row, ...]
    left_out: Counter[str]


def build(
    model: LanguageModel,
    documents: Sequence[str],
    *,
    objectives: Sequence[str] = OBJECTIVES,
    length: int = 1024,
    sentences: int = 4,
    seed: int = 0,
) -> Built:
    """Instances of raw text.

    Args:
        model: causal; its tokenizer and reach count.
        documents: a text each.
        objectives: some of `OBJECTIVES`, in equal parts.
        length: tokens of an instance at most, and no more than the model reads.
        sentences: of a block at least; the paper has 3 or more. Halves need 4.
        seed: of every draw.

    Raises:
        BadInput: no such objective; nothing can be made of these documents; ``"clf"`` of a single document; the model
            is not causal.
    """
    _check_texts(documents)
    if model.kind != "causal":
        raise BadInput(f"{model.name!r} is {model.kind}; examples in a prompt are for a causal model")
    for name in objectives:
        if name not in OBJECTIVES:
            raise BadInput(f"there is no objective {name!r}{nearest(name, OBJECTIVES)}")
    count("sentences", sentences, 3), count("seed", seed)
    if not objectives or len(set(objectives)) < len(objectives):
        raise BadInput("give at least one objective, each once")
    blocks, short = blocks_of(documents, sentences)
    if not blocks:
        raise BadInput(f"none of the {len(documents)} documents has {sentences} sentences: there is nothing to learn")
    if "clf" in objectives and len({block.document for block in blocks}) < 2:
        raise BadInput("'clf' needs texts of at least two documents; give more, or leave that objective out")
    rng = np.random.default_rng(seed)
    left_out = Counter({"short document": short} if short else {})
    order = rng.permutation(len(blocks))
    instances: list[Instance] = []
    rows: list[Row] = []
    for number, name in enumerate(objectives):
        mine = [blocks[i] for i in order[number :: len(objectives)]]
        source = _Source(model, min(length, model.most), blocks, rng, left_out)
        for instance, row in source.instances(name, mine):
            instances.append(instance)
            rows.append(row)
    if not rows:
        raise BadInput(f"no two examples fit into {min(length, model.most)} tokens: {dict(left_out)}")
    mixed = rng.permutation(len(rows))
    return Built(tuple(instances[i] for i in mixed), tuple(rows[i] for i in mixed), left_out)


def plain(model: LanguageModel, documents: Sequence[str], length: int = 1024) -> list[Row]:
    """The documents as they are, every token but the first learnt: the control ExtraLM.

    Raises:
        BadInput: rows of fewer than two tokens, of which nothing is learnt; what is no text.
    """
    _check_texts(documents)
    if length < 2:
        raise BadInput(f"length is {length}; a row has two tokens at least, of which the first is given")
    most, rows = min(length, model.most), []
    for document in documents:
        ids = tuple(model.tokenizer.encode(document))
        for at in range(0, len(ids), most):
            part = ids[at : at + most]
            if len(part) > 1:
                rows.append(Row(part, tuple(range(1, len(part)))))
    return rows


@dataclass(frozen=True)
class SelfSupervised:
    """The method (109): build instances, go on training on them.

    What was learnt is best asked as it was learnt, of examples that `asked` writes::

        answer = answerer(model, tuned, method.training.framing)
        in_context(answer, {"task": (asked(queries), asked(pool))}, k=4, between=" ", apart="\\n")

    Args:
        objectives, length, sentences: see `build`.
        training: the settings; by default AdamW at 1e-4, 8 instances a step, one pass.
        changes: what learns, of the model's tower; by default low-rank changes of all its linear maps.
    """

    objectives: tuple[str, ...] = OBJECTIVES
    length: int = 1024
    sentences: int = 4
    training: Instruct = field(
        default_factory=lambda: Instruct(
            lr=1e-4,
            batch=8,
            pack=False,
            update=lambda decay: AdamW(weight_decay=decay),
            changes=low_rank,
            framing=Framing(),
        )
    )

    def fit(
        self, model: LanguageModel, documents: Sequence[str], seed: int = 0, progress: Progress | None = None
    ) -> Tuned:
        """Train ``model`` on the text of ``documents``; it is used with ``tuned.delta`` attached, see `tune`."""
        built = build(
            model, documents, objectives=self.objectives, length=self.length, sentences=self.sentences, seed=seed
        )
        return self.training.learn(model, built.rows, seed, progress)


def asked(examples: Sequence[Example]) -> list[Example]:
    """Examples written as those of an instance, ``Input: …`` and ``Output:``, a line each."""
    return [replace(one, inputs=f"Input: {one.inputs}\nOutput:") for one in examples]


def _check_texts(documents: Sequence[str]) -> None:
    if isinstance(documents, str):
        raise BadInput("documents are a list of texts, not one text")
    for number, document in enumerate(documents):
        if not isinstance(document, str):
            raise BadInput(f"document {number} is {document!r:.60}, which is no text")


def low_rank(tower: Any) -> tuple[Placed, ...]:
    """Low-rank changes of every linear map of the blocks."""
    return (Placed(LoRA(), Where(LINEAR)),)


class _Source:
    """Examples of one objective, put together as long as they fit."""

    def __init__(
        self, model: LanguageModel, most: int, blocks: Sequence[Block], rng: np.random.Generator,
        left_out: Counter[str],
    ) -> None:  # fmt: skip
        self.model, self.most, self.blocks, self.rng, self.left_out = model, most, blocks, rng, left_out
        self.kinds: tuple[str, ...] = ()
        self.names: tuple[str, ...] = ()
        self.queue: list[int] = []

    def instances(self, name: str, blocks: Sequence[Block]) -> Iterator[tuple[Instance, Row]]:
        """Of these blocks, one example each."""
        pairs: list[tuple[Pair, str]] = []
        parts: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self._begin(name)
        for block in blocks:
            made = self._example(name, block)
            if made is None:
                self.left_out["has a sign"] += 1
                continue
            part = self._part(made[0], bool(parts))
            if parts and _tokens(parts) + len(part[0]) + len(part[1]) > self.most:
                yield from self._done(name, pairs, parts)
                pairs, parts = [], []
                self._begin(name)
                made = self._example(name, block)
                assert made is not None
                part = self._part(made[0], False)
            if len(part[0]) + len(part[1]) > self.most:
                self.left_out["too long"] += 1  # an example is left out whole: an answer is never cut
                self._begin(name)
                continue
            pairs.append(made)
            parts.append(part)
        yield from self._done(name, pairs, parts)

    def _done(self, name: str, pairs: Sequence[tuple[Pair, str]], parts: Any) -> Iterator[tuple[Instance, Row]]:
        if len(parts) < 2:  # nothing would be shown
            self.left_out["alone"] += len(parts)
            return
        kinds = tuple(kind for _, kind in pairs) if name == "clf" else ()
        yield Instance(name, tuple(pair for pair, _ in pairs), kinds), chained(parts)

    def _begin(self, name: str) -> None:
        """What all examples of an instance have in common."""
        self.queue = []
        if name == "lpp":
            self.names = ("True", "False") if self.rng.random() < 0.5 else ()
        if name == "clf":
            some = self.rng.permutation(len(CORRUPT))[: int(self.rng.integers(1, 3))]
            self.kinds = ("original", *(CORRUPT[i] for i in sorted(some)))
            names = NAMES[len(self.kinds)]
            drawn = names[int(self.rng.integers(len(names)))]
            self.names = tuple(drawn[i] for i in self.rng.permutation(len(drawn)))

    def _example(self, name: str, block: Block) -> tuple[Pair, str] | None:
        if name == "nsg":
            return nsg(block), ""
        if name == "mwp":
            pair = mwp(block, self.rng)
            return None if pair is None else (pair, "")
        if name == "lpp":
            passage, phrase = lpp(block)
            asked = f"Question: {passage} ?"
            if not self.names:
                return (asked, f"Answer: {phrase}"), ""
            true = self._class(2) == 0
            offered = phrase if true else lpp(self._other(block, phrase))[1]
            return (f"{asked}\nAnswer: {offered}", self.names[0 if true else 1]), ""
        number = self._class(len(self.kinds))
        others = [one for one in self._some() if one.document != block.document] or [self._other(block)]
        text = corrupted(block, self.kinds[number], others, self.rng)
        return (text, self.names[number]), self.kinds[number]

    def _class(self, ways: int) -> int:
        """Each class in turn, in a new order each time: counts of an instance differ by one at most."""
        if not self.queue:
            self.queue = self.rng.permutation(ways).tolist()
        return self.queue.pop()

    def _some(self) -> list[Block]:
        """A few blocks at random."""
        return [self.blocks[i] for i in self.rng.integers(len(self.blocks), size=16)]

    def _other(self, block: Block, phrase: str | None = None) -> Block:
        """A block of another document, or with another last phrase."""

        def differs(one: Block) -> bool:
            return one.document != block.document if phrase is None else lpp(one)[1] != phrase

        for i in self.rng.permutation(len(self.blocks)).tolist():
            if differs(found := self.blocks[int(i)]):
                return found
        raise BadInput("all texts have one last phrase, or are of one document; give more documents")

    def _part(self, pair: Pair, follows: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        given = f"Input: {pair[0]}\nOutput:"
        encode: Callable[..., list[int]] = self.model.tokenizer.encode
        ids = encode("\n" + given, add_special_tokens=False) if follows else encode(given)
        return tuple(ids), continuation(self.model.tokenizer, pair[1])


def _tokens(parts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> int:
    return sum(len(given) + len(answer) for given, answer in parts)
