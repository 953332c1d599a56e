"""`handful advise context`: how much of few-shot accuracy rests on what an item is seen with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import handful
from handful.adapt import head_class
from handful.commands.bench import check_heads, class_text_of, tower_for, views_of
from handful.commands.sources import EMPTY, Columns, column_of, labelled, read_source
from handful.errors import BadInput
from handful.evaluate.contexts import context_episodes
from handful.evaluate.episodic import run
from handful.evaluate.spurious import ContextGap, SpuriousShift, context_gap, spurious_shift
from handful.protocols import Encoder, Progress
from handful.ship.model import Encoded, encode_dataset

PHOTO = "a photo of a {}"


@dataclass(frozen=True)
class ContextAdvice:
    """What `advise_context` finds.

    Attributes:
        gaps: by head, accuracy of both kinds of episodes and the paired gap.
        shift: how alike images are to the words of their class and of their context; ``None`` for what is no image, or
            an encoder without a text side.
        share: of the support, how much is from the context of its class.
        skipped: classes that were left out.
        setting: what was judged.
    """

    gaps: Mapping[str, ContextGap]
    shift: SpuriousShift | None
    share: float
    skipped: tuple[str, ...]
    setting: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; a ratio that is no number is ``None``."""
        shift = None if self.shift is None else self.shift.as_dict()
        if shift is not None and np.isnan(shift["ratio"]):
            shift["ratio"] = None
        heads = [{"head": key, **gap.as_dict()} for key, gap in self.gaps.items()]
        return {
            **self.setting, "share": self.share, "skipped": list(self.skipped), "heads": heads, "shift": shift,
        }  # fmt: skip


def advise_context(
    sources: Any,
    *,
    context: str,
    heads: Sequence[str],
    ways: int = 5,
    shots: int = 5,
    queries: int = 15,
    episodes: int = 600,
    rho: float = 1.0,
    skip_few: bool = False,
    seed: int = 0,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    encoder: str | None = None,
    merge_labels: bool = False,
    skip_bad: bool = False,
    cache: bool = True,
    progress: Progress | None = None,
) -> ContextAdvice:
    """How much accuracy falls where each class is learnt in one context and asked in others (MetaCoCo, paper 135).

    Each head answers the same queries twice: from examples of a class that share one context, another for every class,
    and from examples of the contexts of the queries. Queries share no context with the first.

    Args:
        sources: a labelled table.
        context: its column that says what an item is seen with (a background, a site, a style).
        heads: keys of heads.
        ways, shots, queries, episodes: classes an episode, examples and queries a class, how many.
        rho: share of the examples from the context of their class; the rest is from a second one.
        skip_few: leave out classes with too few contexts, rather than stop.
        seed: of the draw, and of heads that draw.
        text, image, label: columns of a table; guessed from their names when not given.
        encoder: name of the encoder; by default the embedded one for the modality.
        merge_labels: treat labels that differ only in case or blanks as one.
        skip_bad: leave out items that cannot be read.
        cache: use the feature cache.

    Raises:
        BadInput: no such column, an item without a context, a class with too few contexts, a head there is not.
    """
    check_heads(heads)
    columns = Columns(text, image, label)
    data = labelled(read_source(sources, None, columns, merge_labels=merge_labels, skip_bad=skip_bad))
    where = column_of(data, context, "--context")
    if EMPTY in where:
        raise BadInput(f"--context: labelled item {where.index(EMPTY) + 1} has no {context!r}; fill it in")
    tower = tower_for(data, encoder)
    encoded = encode_dataset(data, tower, views=views_of(heads), cache=cache, skip_bad=skip_bad, progress=progress)
    data, contexts = data.take(encoded.kept), np.asarray(where)[encoded.kept]
    labels = np.asarray(data.labels)
    drawn = context_episodes(
        labels, contexts, ways=ways, shots=shots, queries=queries, episodes=episodes, rho=rho,
        few="skip" if skip_few else "error", seed=seed,
    )  # fmt: skip
    given: dict[str, Any] = {"text": class_text_of(tower, None, data), "random_state": seed}
    if tower is not None:
        given["logit_scale"] = tower.logit_scale
    gaps = {}
    for key in heads:
        made = head_class(key)(**given)
        each = (run(made, encoded.features, labels, part, seed=seed) for part in (drawn.spurious, drawn.control))
        gaps[key] = context_gap(*(result.accuracy for result in each))
    setting = {
        "handful": handful.__version__,
        "sources": list(data.provenance.sources),
        "encoder": None if tower is None else tower.name,
        "context": context,
        "n": len(data),
        "classes": len(data.classes),
        "contexts": len(np.unique(contexts)),
        "ways": ways,
        "shots": shots,
        "queries": queries,
        "episodes": episodes,
        "seed": seed,
    }
    return ContextAdvice(gaps, _shift(tower, encoded, labels, contexts), drawn.share, drawn.skipped, setting)


def _shift(tower: Encoder | None, encoded: Encoded, labels: np.ndarray, contexts: np.ndarray) -> SpuriousShift | None:
    if tower is None or tower.modality != "image" or tower.aligned is None:
        return None
    (concept, y), (context, c) = (np.unique(names, return_inverse=True) for names in (labels, contexts))
    vectors = tower.class_text([PHOTO.format(str(name).replace("_", " ")) for name in (*concept, *context)])
    x = encoded.features.views.get("aligned", encoded.features.x)
    return spurious_shift(x, vectors[: len(concept)], vectors[len(concept) :], y.tolist(), c.tolist())
