"""`handful inspect`: what a model file is, where it comes from, and what it would give away to whoever gets it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from handful.errors import BadInput
from handful.ship.bundle import DESCRIPTION, PARTS, TENSORS, Layout, read_layout, read_parts

_BLOCK = 1 << 20


def inspect(model: str | Path) -> dict[str, Any]:
    """Look into a model file without running anything of it; neither encoder nor head is loaded.

    Args:
        model: a file that `handful fit` saved. What it holds of the encoder is compared with its hashes.

    Returns:
        A JSON-able dict:

        - ``model, bytes, sha256, format``: the file;
        - ``modality, classes, unseen, n, metric, head, encoder, experiment``: what it is; ``unseen`` are classes
          without examples, known by their text alone; ``encoder["inside"]`` says whether the encoder lies in the file;
        - ``unlabelled``: ``n`` items without labels that it learnt from, ``dropped``, ``use`` in words; ``None`` where
          there are none;
        - ``accuracy, method, population``: the number that is quoted for it, how it was found, whom it speaks for;
        - ``label_sets``: of a model of several labels an item its ``separator``, what stands for ``none`` of them, its
          ``micro_f1``, ``macro_f1`` and ``exact_match``; ``None`` for one label an item;
        - ``asked``: of a language model that is asked, its ``template`` and the ``answers`` (both ``None`` where it is
          asked at masks), and how many examples are ``shown`` to it with every question; ``None`` for other models;
        - ``reject``: how it answers that an item is none of its classes, and what that is worth, or ``None``;
        - ``private, certificate``: the privacy that was promised and what is withheld for it, and what is certified of
          its error; ``None`` for most models;
        - ``provenance``: version, seed, command, versions of packages, sources, SHA-256 of each of their files, and
          each time it has ``grown``: from the file with which SHA-256, when, which classes;
        - ``personal``: what could tell of people, see below;
        - ``sizes``: bytes of each part of the file; ``foreign``: members that no model has, which are never read.

        Of ``personal``: ``paths`` of files and folders, ``command``, names of ``columns``, ``class_names``, ``items``
        (places of single items and remarks on the data), ``class_vectors`` (whether names or descriptions of classes
        are there as vectors; their words are not), ``example_vectors`` (how many examples have a vector of their own:
        who has the encoder can test whether a given text or picture was among them), ``example_tensors`` (those with a
        row an example, be it its vector or its label), ``single_examples`` (classes of one example, whose class vector
        is that of the example), ``texts`` (whether examples are there as text: those that a language model is shown
        with every question; never in other models). ``pictures`` is false: the format has no place for them.

    Raises:
        BadInput: no such file, not a model, damaged, or from a newer version.
    """
    path = Path(model)
    layout = read_layout(path)
    parts = read_parts(path)
    try:
        return {
            "model": str(model),
            "bytes": path.stat().st_size,
            "sha256": _digest(path),
            "format": layout.description["format"],
            **_what(layout.description, bool(parts)),
            **quoted_number(layout.description["card"]),
            "label_sets": _label_sets(layout.description),
            "reject": _reject(layout.description),
            **_guarantees(layout.description["card"]),
            "provenance": _provenance(layout.description["card"]),
            "personal": _personal(layout),
            "sizes": _sizes(layout),
            "foreign": list(layout.others),
        }
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        raise BadInput(f"{path} is not a whole Handful model: {error!r}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        total = hashlib.sha256()
        while block := file.read(_BLOCK):
            total.update(block)
    return total.hexdigest()


def _what(description: Mapping[str, Any], inside: bool) -> dict[str, Any]:
    card, encoder = description["card"], description["encoder"]
    name = encoder["name"]
    return {
        "modality": str(card["task"]["modality"]),
        "classes": _classes(card),
        "unseen": _unseen(description),
        "n": int(card["task"]["n"]),
        "metric": str(card["metric"]),
        "head": {"key": str(description["head"]["key"]), "choice": str(card["head"]["choice"])},
        "encoder": {
            "name": None if name is None else str(name),
            "fingerprint": str(encoder["fingerprint"]),
            "dim": int(description["width"]),
            "options": dict(encoder.get("options") or {}),
            "inside": inside,
        },
        "experiment": _text((card.get("experiment") or {}).get("note")),
        "unlabelled": _unlabelled(card.get("unlabelled")),
        "tuning": _text((card.get("tuning") or {}).get("sentence")),
        "compressed": _compressed(card.get("compressed")),
        "asked": _asked(description),
    }


def _asked(description: Mapping[str, Any]) -> dict[str, Any] | None:
    """How a language model is asked."""
    reading = (description["encoder"].get("delta") or {}).get("reading") or {}
    if reading.get("kind") not in ("words", "answers", "masks", "levels"):
        return None
    given = reading.get("words") or reading.get("answers")
    return {
        "template": _text(reading.get("template")),
        "answers": given and [str(word) for word in given],
        "shown": len(reading.get("shown") or ()),
    }


def _unseen(description: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in description.get("unseen") or ()]


def _compressed(made: Mapping[str, Any] | None) -> dict[str, float] | None:
    """How much of what tuning changed was kept, and how many times smaller it is than in 16 bits."""
    return None if not made else {name: float(made[name]) for name in ("density", "ratio")}


def _unlabelled(pool: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not pool:
        return None
    return {"n": int(pool["n"]), "dropped": int(pool["dropped"]), "use": str(pool["use"])}


def _classes(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": str(row["name"]), "count": _count(row["count"])} for row in card["task"]["classes"]]


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def _searched(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not given:
        return None
    numbers = {key: float(given["found"][key]) for key in ("max_grad_norm", "lr")}
    found = {"epochs": int(given["found"]["epochs"]), **numbers}
    return {"trials": int(given["trials"]), "share": float(given["share"]), "found": found}


def _guarantees(card: Mapping[str, Any]) -> dict[str, Any]:
    spent, certificate = card.get("private"), card.get("certificate")
    words, numbers = (
        ("relation", "accountant", "noise"),
        ("epsilon", "delta", "sigma", "sampling_rate", "max_grad_norm"),
    )
    return {
        "private": spent
        and {
            **{key: float(spent[key]) for key in numbers},
            "steps": int(spent["steps"]),
            **{key: str(spent[key]) for key in words},
            "replace_one": {key: float(spent["replace_one"][key]) for key in ("epsilon", "delta")},
            **{key: list(_strings(spent[key])) for key in ("withheld", "public")},
            "searched": _searched(spent.get("searched")),
        },
        "certificate": _text((certificate or {}).get("statement")),
    }


def quoted_number(card: Mapping[str, Any]) -> dict[str, Any]:
    """The accuracy quoted in a card, how it was found, whom it speaks for.

    It is that on the test set if there was one, else the estimate, corrected where that was done.
    """
    sets = card.get("label_sets") or {}
    test = card.get("test") or sets.get("test") or {}
    estimate = card.get("estimate") or sets.get("estimate") or {}
    method: Any
    if test:
        accuracy, method = test["assessment"].get("accuracy"), f"measured on {test['source']}"
    else:
        accuracy = estimate.get("accuracy") or (estimate.get("assessment") or {}).get("accuracy")
        method = estimate.get("method")
    return {
        "accuracy": accuracy and {key: float(accuracy[key]) for key in ("value", "low", "high")},
        "method": _text(method),
        "population": _text((card.get("population") or {}).get("sentence")),
    }


def _label_sets(description: Mapping[str, Any]) -> dict[str, Any] | None:
    """How several labels are written, and what was quoted for them."""
    given, told = (description.get("decision") or {}).get("sets"), description["card"].get("label_sets") or {}
    if given is None:
        return None
    best = told.get("test") or told.get("estimate") or {}
    found = best.get("quoted") or best.get("assessment") or {}
    measures = {name: found.get(name) for name in ("micro_f1", "macro_f1", "exact_match")}
    numbers = {
        name: value and {key: float(value[key]) for key in ("value", "low", "high")} for name, value in measures.items()
    }
    return {"separator": str(given["separator"]), "none": _text(given["none"]), **numbers}


def _reject(description: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer "none of these": its kind and name from what the model does, the rest from its card."""
    given, told = description.get("reject"), description["card"].get("reject") or {}
    if given is None:
        return None
    scores = {name: told.get(name) for name in ("false_alarms", "found", "auroc", "fpr95")}
    return {
        "kind": str(given["kind"]),
        "other": str(given["other"]),
        "asked": None if told.get("asked") is None else float(told["asked"]),
        "method": _text(told.get("method")),
        **{
            name: value and {key: float(value[key]) for key in ("value", "low", "high")}
            for name, value in scores.items()
        },
    }


def _provenance(card: Mapping[str, Any]) -> dict[str, Any]:
    made, task, pool = card.get("provenance") or {}, card["task"], card.get("unlabelled") or {}
    return {
        "handful": str(card["handful"]),
        "seed": _count(card["seed"]),
        "command": _text(made.get("command")),
        "versions": {str(name): str(version) for name, version in (made.get("versions") or {}).items()},
        "sources": list(_strings([task["sources"], pool.get("sources")])),
        "sha256": {str(n): str(d) for n, d in [*task["sha256"].items(), *(pool.get("sha256") or {}).items()]},
        "grown": [_grown(step) for step in card.get("grown") or []],
    }


def _grown(step: Mapping[str, Any]) -> dict[str, Any]:
    names = [str(row["name"]) for row in step["classes"]]
    return {"from": _text(step["from"]), "when": str(step["when"]), "classes": names}


def _personal(layout: Layout) -> dict[str, Any]:
    card = layout.description["card"]
    task = card["task"]
    classes = _classes(card)
    noisy = layout.description["head"]["key"] in (
        "private-logistic",
        "private-search",
    )  # weights, be there as many classes as examples
    rows = [] if noisy else _example_tensors(layout, int(task["n"]), len(classes))
    single = sum(row["count"] == 1 for row in classes)
    return {
        "paths": list(dict.fromkeys(_paths(card))),
        "command": _text((card.get("provenance") or {}).get("command")),
        "columns": list(dict.fromkeys(_strings(task["columns"]))),
        "class_names": [*(row["name"] for row in classes), *_unseen(layout.description)],
        "items": list(dict.fromkeys(_items(card))),
        "class_vectors": "text" in layout.tensors,
        "example_vectors": int(task["n"]) if rows else 0,
        "example_tensors": rows,
        "single_examples": single,
        "texts": bool((_asked(layout.description) or {}).get("shown")),
        "pictures": False,
    }


def _paths(card: Mapping[str, Any]) -> Iterator[str]:
    yield from _strings([card["task"]["sources"], list(card["task"]["sha256"])])
    for name in ("test", "population", "cost", "reject"):
        yield from _strings((card.get(name) or {}).get("source"))
    yield from _strings(((card.get("label_sets") or {}).get("test") or {}).get("source"))
    pool = card.get("unlabelled") or {}
    yield from _strings([pool.get("sources"), list(pool.get("sha256") or ())])
    for step in card.get("grown") or []:
        yield from _strings([step["file"], step["sources"], (step["test"] or {}).get("source")])


def _items(card: Mapping[str, Any]) -> Iterator[str]:
    """Places of single items, and what the reader noted of the data."""
    task, duplicates = card["task"], card.get("duplicates") or {}
    yield from _strings([task["skipped"], task.get("notes")])
    for row in [
        *(card.get("suspicious") or []),
        *(card.get("blind_spots") or []),
        *(duplicates.get("conflicts") or []),
    ]:
        yield from _strings(row["where"])


def _strings(value: Any) -> Iterator[str]:
    """The strings of a string, list or mapping, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _example_tensors(layout: Layout, n: int, classes: int) -> list[str]:
    """Tensors with a row an example, whether it holds its vector or its label; names of classes may be rows too.

    Judged by shape, so that no head need be loaded: where a tensor of another kind has as many rows it is named too.
    """
    tables = ((name, shape) for name, (_, shape) in sorted(layout.tensors.items()) if len(shape) >= 2)
    return [name for name, shape in tables if n and shape[0] in (n, n + classes) and not _of_names(name)]


def _of_names(tensor: str) -> bool:
    """Whether a tensor has a row a class text."""
    return tensor in ("text", "unseen") or tensor.startswith("unseen_")


def _sizes(layout: Layout) -> list[dict[str, Any]]:
    words = {DESCRIPTION: "description", TENSORS: "head"}
    return [
        {"part": words.get(name) or f"encoder, {name.removeprefix(PARTS)}", "bytes": size}
        for name, size in layout.sizes.items()
    ]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
