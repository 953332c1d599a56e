"""From what a user points at to what is learnt from: reading, splitting off an experiment, class names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handful.errors import BadInput, nearest
from handful.evaluate.indices import places
from handful.read import Dataset, from_arrays, is_code, read, read_class_names, readable
from handful.read.checks import checked
from handful.read.classnames import SAVED
from handful.read.labels import LabelSets, label_sets

NAME_WORDS = 6
"""Words a class name has at most; what is longer is a description."""


EMPTY = "(empty)"
"""What an empty cell of a column counts as."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what, ``None`` is guessed; how a label holds several, see `handful.read.read`."""

    text: str | Sequence[str] | None = None
    image: str | None = None
    label: str | None = None
    group: str | None = None
    group_regex: str | None = None
    multi_label: str | None = None
    none: str | None = None


def read_source(
    source: Any,
    labels: Sequence[str] | None = None,
    columns: Columns = Columns(),
    *,
    merge_labels: bool = False,
    skip_bad: bool = False,
    require_labels: bool = False,
) -> Dataset:
    """A `Dataset` from a path, a list of paths, ``{label: [items]}``, a frame, a `Dataset`, or items with labels."""
    several, none = columns.multi_label, columns.none
    if isinstance(source, Dataset):
        return as_asked(source, label_sets(several, none), merge_labels)
    if labels is not None:
        return from_arrays(source, labels, merge_labels=merge_labels, skip_bad=skip_bad, multi_label=several, none=none)
    many = isinstance(source, (list, tuple)) and all(isinstance(s, (str, Path)) for s in source)
    return read(
        *(source if many else [source]),
        text=columns.text,
        image=columns.image,
        label=columns.label,
        group=columns.group,
        group_regex=columns.group_regex,
        merge_labels=merge_labels,
        skip_bad=skip_bad,
        require_labels=require_labels,
        multi_label=several,
        none=none,
    )


def as_asked(data: Dataset, sets: LabelSets | None, merge_labels: bool) -> Dataset:
    """A data set whose labels are read as several, where that is asked for and was not done. Raises `BadInput` for one
    that has several where one is wanted, or has them in another way."""
    if data.sets == sets:
        return data
    if data.sets is not None:
        how = f"multi_label={data.sets.separator!r}, none={data.sets.none!r}"
        raise BadInput(f"the data set has several labels an item: it needs {how}")
    return checked(data, merge_labels=merge_labels, sets=sets)


def labelled(data: Dataset) -> Dataset:
    """The labelled items; `BadInput` when there are none, or only one class."""
    found = data.labelled
    name = ", ".join(data.provenance.sources) or "the data"
    if not len(found):
        column = f" column {data.label_column!r} is empty" if data.label_column else " give --label, or labels"
        raise BadInput(f"{name}: no item has a label;{column}")
    if len(found.classes) < 2:
        raise BadInput(f"{name}: one class only ({found.classes[0]!r}); at least two are needed")
    return found


def column_of(data: Dataset, name: str, option: str) -> list[str]:
    """The cells of a column as text, an empty one as `EMPTY`.

    Raises:
        BadInput: no table, no such column, or the column of the label; ``option`` says what asked for it.
    """
    if data.table is None:
        raise BadInput(f"{option} {name}: the source is not a table, so that it has no columns")
    if name not in data.table.columns:
        raise BadInput(f"{option}: the source has no column {name!r}{nearest(name, data.table.columns)}")
    if name == data.label_column:
        raise BadInput(f"{option}: {name!r} is the column of the label; classes are compared anyway")
    return [cell_of(value) for value in data.table[name].to_list()]


def cell_of(value: Any) -> str:
    """A cell as text."""
    return EMPTY if value is None or not str(value).strip() else str(value).strip()


def draw_shots(data: Dataset, shots: int, seed: int) -> tuple[Dataset, Dataset]:
    """``shots`` items of every class at random, and all the others.

    Raises:
        BadInput: naming a class with too few items, or when nothing is left to test on.
    """
    if shots < 1:
        raise BadInput(f"--shots must be at least 1, not {shots}")
    counts = Counter(data.labels)
    small = min(counts, key=lambda c: (counts[c], str(c)))
    if counts[small] < shots:
        raise BadInput(f"--shots {shots}, but class {small!r} has {counts[small]} examples")
    labels = np.asarray(data.labels)
    draw = np.random.default_rng(seed).random(len(labels))
    taken = places(np.unique(labels, return_inverse=True)[1], draw) < shots
    if taken.all():
        raise BadInput(f"--shots {shots} leaves nothing to test on: every class has just {shots} examples")
    return data.take(np.flatnonzero(taken)), data.take(np.flatnonzero(~taken))


def class_sentences(
    class_names: str | Path | Mapping[str, str | Sequence[str]] | None,
    classes: Sequence[str],
    templates: Sequence[str] = (),
) -> dict[str, list[str]]:
    """What each class is called, in words: as given, else read off the labels; nothing for labels that are codes.

    Names of up to `NAME_WORDS` words are put into each of the ``templates``; longer descriptions stay as they are, and
    so does all that a file of sentences holds.

    Raises:
        BadInput: the names speak of none of the classes; as `as_labels`.
    """
    if class_names is None:
        if sum(map(is_code, classes)) > 0.2 * len(classes):
            return {}
        return {c: _in_templates([readable(c)], templates) for c in classes if not is_code(c)}
    given = as_labels(_given(class_names), classes)
    templates = () if only_sentences(class_names) else templates
    texts = {c: given[c] for c in classes if c in given}
    if not texts:
        raise BadInput(
            f"the class names speak of {', '.join(list(given)[:4])}, none of which is a label; "
            f"labels: {', '.join(classes[:4])}"
        )
    return {c: _in_templates(sentences, templates) for c, sentences in texts.items()}


def other_sentences(
    class_names: str | Path | Mapping[str, str | Sequence[str]] | None,
    classes: Sequence[str],
    templates: Sequence[str] = (),
) -> dict[str, list[str]]:
    """As `class_sentences`, of what is named but none of ``classes``, in the order of their labels."""
    if class_names is None:
        return {}
    given = as_labels(_given(class_names), classes)
    templates = () if only_sentences(class_names) else templates
    return {c: _in_templates(given[c], templates) for c in sorted(given.keys() - set(classes))}


def _given(class_names: str | Path | Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    found = class_names if isinstance(class_names, Mapping) else read_class_names(class_names)
    return {str(c): [texts] if isinstance(texts, str) else [str(t) for t in texts] for c, texts in found.items()}


def as_labels(given: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """What is given by name, by label: a name that is no label becomes the one that differs in case and blanks only.

    Published descriptions write names so (``annual_crop_land`` for "Annual Crop Land").

    Raises:
        BadInput: two such names for one label, or two labels for one name.
    """
    alike: dict[str, list[str]] = {}
    for label in classes:
        if label not in given:
            alike.setdefault(_plain(label), []).append(label)
    found: dict[str, Any] = {}
    taken: dict[str, str] = {}
    for name, value in given.items():
        labels = [] if name in classes else alike.get(_plain(name), [])
        if len(labels) > 1:
            raise BadInput(f"class name {name!r} may mean label {labels[0]!r} or {labels[1]!r}: write it as the label")
        label = labels[0] if labels else name
        if label in taken:
            raise BadInput(f"class names {taken[label]!r} and {name!r} both mean label {label!r}: leave one out")
        found[label], taken[label] = value, name
    return found


def only_sentences(class_names: str | Path | Mapping[str, Any]) -> bool:
    """Whether this is a file without names, whose texts no template is meant for."""
    return not isinstance(class_names, Mapping) and Path(class_names).suffix.lower() == SAVED


def _plain(name: str) -> str:
    return "_".join(name.lower().replace("_", " ").split())


def _in_templates(sentences: Sequence[str], templates: Sequence[str]) -> list[str]:
    return [
        template.format(sentence)
        for sentence in sentences
        for template in (templates if templates and len(sentence.split()) <= NAME_WORDS else ("{}",))
    ]
