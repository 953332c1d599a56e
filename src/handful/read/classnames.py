"""What classes are called: a file that says for each label, in words, what it means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from handful.errors import BadInput
from handful.read.columns import LABEL, first_usual
from handful.read.delimited import decode
from handful.read.formats import TABLES, read_table
from handful.read.jsons import parse
from handful.read.labels import label_texts
from handful.read.places import columns_are, existing, file_bytes, one_line, quoted
from handful.read.synonyms import most_frequent_name, words_of
from handful.read.tables import Table, cell_text

DESCRIPTION = ("description", "descriptions", "name", "names", "text", "texts", "title", "words", "meaning",
               "definition", "sentence", "prompt")  # fmt: skip
SAVED = ".pt"
"""Files that hold sentences only, no names."""
_PLAIN_LIST = "is a plain list, which does not say which label each name belongs to; give {} for each label"


def read_class_names(path: str | Path) -> dict[str, list[str]]:
    """Descriptions of each label, in the order of the file, without repetitions.

    Tables (csv, tsv, jsonl, json, parquet, xlsx) need a column of labels and one or more of descriptions; several rows
    of one label add up. A JSON object maps a label to a text or a list of texts; or to counts of its synonyms, of which
    the most frequent one is taken (`most_frequent_name`). In a ``.txt`` file each line is a label, a tab (or a colon
    and a blank), and a description. A ``.pt`` file is a dictionary of lists of sentences as
    torch saves it, such as the descriptions published with paper 033; nothing in it is executed.

    Raises:
        BadInput: no such file, nothing that says which label a name belongs to, or a label without any description.
    """
    path = existing(path)
    name, suffix = path.name, path.suffix.lower()
    if suffix == ".txt":
        return _collected(_lines(decode(file_bytes(path), name), name), name)
    if suffix == SAVED:
        return _collected(_object(_saved(file_bytes(path), name), name), name)
    if suffix == ".json":
        value = parse(decode(file_bytes(path), name), name)
        if isinstance(value, dict):
            return _collected(_object(value, name), name)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            raise BadInput(f"{name} {_PLAIN_LIST.format('{label: description}')}")
    if suffix not in TABLES:
        able = ", ".join((*TABLES, SAVED))
        raise BadInput(f"{name}: class names are read from {able} files, not from {one_line(suffix) or 'this'}")
    return _collected(_rows(read_table(path, name)), name)


def _collected(pairs: Iterable[tuple[str, str]], name: str) -> dict[str, list[str]]:
    """Descriptions by label. Raises `BadInput` for a label that has none."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for label, description in pairs:
        found[label].update({description.strip(): None} if description.strip() else {})
    if not found:
        raise BadInput(f"{name} holds no class names")
    for label, descriptions in found.items():
        if not descriptions:
            raise BadInput(f"{name}: label {quoted(label)} has no description")
    return {label: list(descriptions) for label, descriptions in found.items()}


def _lines(text: str, name: str) -> Iterable[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        label, *descriptions = line.split("\t") if "\t" in line else line.split(": ", 1)
        if not descriptions:
            raise BadInput(f"{name} line {number} {_PLAIN_LIST.format('label, tab, description')}")
        for description in descriptions:
            yield label.strip(), description


def _object(value: dict[str, Any], name: str) -> Iterable[tuple[str, str]]:
    called: dict[tuple[str, ...], str] = {}
    for label, texts in value.items():
        if isinstance(texts, dict):
            label, synonym = _synonym(label, texts, name)
            other = called.setdefault(words_of(synonym), label)
            if other != label:
                raise BadInput(
                    f"{name}: by counts {quoted(synonym)} is the name of label {quoted(other)} and of {quoted(label)}; "
                    "take it out of one"
                )
            yield label, synonym
            continue
        for text in [texts] if isinstance(texts, str) else (texts or [""]) if isinstance(texts, list) else [None]:
            if not isinstance(text, str):
                raise BadInput(f"{name}: label {quoted(label)} needs a text or a list of texts")
            yield label, text


def _synonym(label: str, counts: dict[str, Any], name: str) -> tuple[str, str]:
    """Label and name of a class, from counts or from an entry as they were published with paper 040, names chosen."""
    if isinstance(counts.get("alternates"), dict):
        label, chosen = str(counts.get("name", label)), counts.get("most_common_name")
        if isinstance(chosen, str):
            return label, chosen
        counts = counts["alternates"]
    try:
        return label, most_frequent_name(label, counts)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from None


def _saved(data: bytes, name: str) -> dict[str, Any]:
    """What torch saved. Raises `BadInput` unless it is a dictionary whose keys are text."""
    import torch

    try:
        value = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files, and those that hold more than plain values, fail in many ways
        raise BadInput(
            f"{name} is damaged, or more than plain texts as torch saves them: nothing else is read"
        ) from error
    if not isinstance(value, dict) or not all(isinstance(label, str) for label in value):
        raise BadInput(f"{name} must hold a dictionary that has a list of sentences for each label")
    return value


def _rows(table: Table) -> Iterable[tuple[str, str]]:
    column, descriptions = _columns(table)
    labels = label_texts(table.frame[column].to_list(), table.where)
    texts = [table.frame[name].to_list() for name in descriptions]
    for row, label in enumerate(labels):
        if label is None:
            raise BadInput(f"{table.where[row]}: column {quoted(column)} is empty; every description needs its label")
        for values in texts:
            for value in values[row] if isinstance(values[row], list) else [values[row]]:
                yield label, cell_text(value) or ""


def _columns(table: Table) -> tuple[str, Sequence[str]]:
    """The column of labels and those of descriptions: the usual names, else the only one left."""
    columns = table.frame.columns
    if len(columns) == 1:
        raise BadInput(f"{table.name} {_PLAIN_LIST.format('columns label and description')}")
    label = first_usual([name for name in LABEL if name not in ("label_text", "label_name", "class_name")], columns)
    label = label or first_usual(("id", "code", "key", "class_name", "label_name"), columns)
    others = [name for name in columns if name != label]
    usual = [name for name in others if first_usual((*DESCRIPTION, "label_text", "label_name", "class_name"), [name])]
    if label is None or not (usual or len(others) == 1):
        raise BadInput(f"{table.name} needs columns called label and description; {columns_are(columns)}")
    return label, usual or others
