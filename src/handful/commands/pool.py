"""Items without labels that a head learns from: read, encoded, and kept apart from those it is judged by.

What a pool teaches is frozen into the model when it is fitted, so that an answer does not depend on what else is asked.
An estimate stays honest if no item is judged by a fit that has looked at it, not even without its label. Hence pool
items that (nearly) equal a labelled item or one tested on, or share its group, are dropped, for all folds alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from handful.adapt import HEADS, head_class
from handful.adapt import head as make_head
from handful.adapt.base import Features, Head
from handful.commands.fitted import has_columns
from handful.commands.kept_apart import resembling
from handful.commands.sources import Columns
from handful.errors import BadInput
from handful.evaluate.population import shares_of, shares_of_pool
from handful.evaluate.rejection import joined
from handful.protocols import Encoder, Progress
from handful.read import Dataset, read
from handful.read.grouping import alone_named, group_names
from handful.ship.decision import Decision
from handful.ship.model import encode_dataset

ROWS = "rows"
"""What stands for the rows of the data that have no label, in place of a source of its own."""
UNEVEN = 0.3
"""How much of the pool may be in other classes than if all were equally frequent, before a head that assumes so is
warned of. From 5 labels a class, even pools of WHU-RS19, AG News and Banking77 came out at 0.03 to 0.22 and uneven ones
(Dirichlet 1/2) at 0.28 to 0.62; from one label, even ones at up to 0.34 there, and on TREC at up to 0.57."""


@dataclass(frozen=True)
class Pool:
    """Unlabelled items, as they are and encoded, and what the card says of them."""

    items: Sequence[Any]
    features: Features
    card: dict[str, Any]


def assumes_balance(head: Head) -> bool:
    """Whether a head takes every class to be equally frequent; one that was told the shares does not."""
    return head.needs.assumes_balanced and getattr(head, "class_prior", "uniform") == "uniform"


def check_asked(kind: type[Head], unlabelled: Any, transductive: bool, class_prior: Any) -> None:
    """Refuse, before any work, what a head cannot do.

    Raises:
        BadInput: naming heads that can.
    """
    if transductive and unlabelled is not None:
        raise BadInput("--transductive answers items by each other, --unlabelled by a pool that stays: give one")
    if transductive and not kind.needs.transductive:
        raise BadInput(
            f"--transductive: head {kind.key!r} answers each item by itself; those that look at items together: "
            f"{', '.join(_keys(lambda kind: kind.needs.transductive))}"
        )
    if unlabelled is not None and not kind.learns_from_pool and class_prior != "pool":
        raise BadInput(
            f"--unlabelled: head {kind.key!r} learns nothing from items without labels; those that do: "
            f"{', '.join(_keys(lambda kind: kind.learns_from_pool))} "
            "(or --class-prior pool, to read the mix of classes off them)"
        )


def gather(
    rows: Dataset,
    source: Any,
    columns: Columns,
    learnt: Dataset,
    features: Features,
    held: tuple[Dataset, Features] | None,
    tower: Encoder | None,
    *,
    near_duplicates: bool,
    cache: bool,
    progress: Progress | None,
) -> Pool:
    """The pool: rows of the data without a label, and the items of ``source`` (unless that is `ROWS`), whose labels are
    not read.

    Args:
        rows: of the data, those without a label.
        source: what `handful.read.read` takes, or `ROWS`.
        columns: as asked for the data.
        learnt, features: the labelled items.
        held: items that are tested on, with their features.
        tower: the encoder.
        near_duplicates: whether those count as copies.
        cache, progress: of encoding.

    Raises:
        BadInput: nothing is left, the source cannot be read, or holds something else than the data.
    """
    own = isinstance(source, str) and source == ROWS
    parts = [rows, *([] if own else [_read(source, columns, learnt)])]
    found = [_encoded(part, tower, list(features.views), cache, progress) for part in parts if len(part)]
    name = "the data" if own else str(source) if isinstance(source, (str, Path)) else "the pool"
    if not sum(len(data) for data, _ in found):
        raise BadInput(f"--unlabelled: {name} has no unlabelled item that can be used")
    known = [(learnt, features), *([] if held is None else [held])]
    kept, items = [], []
    for data, x in found:
        copies = np.zeros(len(data), dtype=bool)
        for some, theirs in known:
            copies |= resembling(some, theirs, data, x, near_duplicates)
        kept.append(x.take(np.flatnonzero(~copies)))
        items += [data.items[i] for i in np.flatnonzero(~copies).tolist()]
    n, usable, given = sum(map(len, kept)), sum(len(data) for data, _ in found), sum(map(len, parts))
    if not n:
        raise BadInput(
            f"--unlabelled: every item of {name} (nearly) equals one labelled or tested on, or shares its group"
        )
    card = {
        "n": n,
        "dropped": usable - n,
        "skipped": given - usable,
        "sources": [] if own else list(parts[-1].provenance.sources),
        "sha256": {} if own else dict(parts[-1].provenance.sha256),
        "use": f"{n:,} items without labels were learnt from; the model holds what they taught",
    }
    return Pool(items, reduce(joined, filter(len, kept)), card)


def uneven(head: Head, features: Features, labels: np.ndarray, pool: Features) -> dict[str, Any]:
    """Estimated shares of the classes in the pool, for a head that assumes them equal: what the card adds.

    The shares are read off a head that assumes nothing (``auto``, its probabilities calibrated), as
    `handful.evaluate.population` does; their distance is the share of items that are in too frequent a class.
    """
    asked = make_head("auto", text=head.text, logit_scale=head.logit_scale).fit(features, labels)
    learnt = shares_of(labels, [str(c) for c in asked.classes_])
    proba = Decision().proba(np.asarray(asked.logits(pool), dtype=np.float64))
    shares = shares_of_pool(proba, learnt)
    apart = float(np.abs(shares - 1 / len(shares)).sum() / 2)
    warning = None
    if apart > UNEVEN:
        others = _keys(lambda kind: kind.learns_from_pool and not kind.needs.assumes_balanced)
        warning = (
            f"{head.key} assumes that every class is equally frequent in the pool, but by estimate "
            f"{100 * apart:.0f} % of it is in classes that are too frequent for that; heads that assume no balance: "
            f"{', '.join(others)}"
        )
    by_name = dict(zip(map(str, asked.classes_), shares.tolist(), strict=True))
    return {"shares": by_name, "apart": apart, "warning": warning}


def without_pool(head: Head, transductive: bool) -> dict[str, Any] | None:
    """What the card says of a head that could learn from a pool and has none."""
    if not head.learns_from_pool or head.key == "auto":
        return None
    use = f"none were given: {head.key} answers by the labelled examples alone; --unlabelled FILE gives it a pool"
    if transductive:
        use = "items that are asked about together sway each other's answers (--transductive)"
    return {"n": 0, "dropped": 0, "skipped": 0, "sources": [], "sha256": {}, "use": use}


def _read(source: Any, columns: Columns, learnt: Dataset) -> Dataset:
    if isinstance(source, Dataset):
        data = source
    else:
        text, image = columns.text, columns.image
        if text is None and image is None and has_columns(source) and learnt.label_column is not None:
            text, image = (learnt.item_columns, None) if learnt.modality == "text" else (None, learnt.item_columns[0])
        data = read(source, text=text or None, image=image, skip_bad=True)
    if data.modality != learnt.modality:
        raise BadInput(f"--unlabelled holds {data.modality}, but the labelled data {learnt.modality}")
    if isinstance(data.items, np.ndarray) and data.items.shape[1:] != np.shape(learnt.items)[1:]:
        raise BadInput(f"--unlabelled has {data.items.shape[1]} features an item, the data {np.shape(learnt.items)[1]}")
    if columns.group is not None and data.table is not None and columns.group in data.table.columns:
        data = replace(data, groups=group_names(data.table[columns.group].to_list(), data.where))
    return alone_named(replace(data, labels=(None,) * len(data)))


def _encoded(
    data: Dataset, tower: Encoder | None, views: Sequence[str], cache: bool, progress: Progress | None
) -> tuple[Dataset, Features]:
    """What can be read of it; an unlabelled item that cannot be read is no reason to stop."""
    data = data.take(np.flatnonzero(data.usable))
    if not len(data):
        return data, Features(np.empty((0, 0)), {})
    found = encode_dataset(data, tower, views=views, cache=cache, skip_bad=True, progress=progress)
    return data.take(found.kept), found.features


def _keys(fits: Callable[[type[Head]], bool]) -> list[str]:
    return [key for key in HEADS if fits(head_class(key))]
