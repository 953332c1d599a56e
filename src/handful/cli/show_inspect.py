"""What `handful inspect` prints: what the model is, where it comes from, what it gives away, how large it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from handful.cli.layout import CELL, count, facts, faint, short, some, strong
from handful.cli.show_fit import Lines, privacy, withheld
from handful.cli.terminal import show
from handful.cli.text import visible

MOST = 8  # of paths, items and parts that are shown
PATH = 200  # characters of a path, a command, a remark


def show_inspect(found: Mapping[str, Any]) -> None:
    """Print what `handful.commands.inspect.inspect` found."""
    show(strong(_headline(found)), "", facts(_what(found)))
    show("", strong("Where it comes from"), facts(_provenance(found["provenance"])))
    show("", strong("What it gives away"), facts(_personal(found)))
    show("", strong("Size"), facts(_sizes(found)))
    show("", faint("--json lists everything"))


def _headline(found: Mapping[str, Any]) -> str:
    kind = {"text": "A text classifier", "image": "An image classifier"}.get(found["modality"], "A classifier")
    learnt = f"learnt from {count(found['n'], 'labelled example')}" if found["n"] else "made from class names alone"
    several = ("label, several an item", "labels, several an item") if found["label_sets"] else ("class", "classes")
    return f"{kind} for {count(len(found['classes']), *several)}, {learnt}"


def _what(found: Mapping[str, Any]) -> list[tuple[str, Lines]]:
    encoder, head = found["encoder"], found["head"]
    key, choice = visible(head["key"], CELL), visible(head["choice"], PATH)
    rows: list[tuple[str, Lines]] = [
        ("File", [visible(found["model"])]),
        ("SHA-256", [found["sha256"]]),
        ("Classes", [some([c["name"] for c in found["classes"]])]),
        ("No examples", [f"{some(found['unseen'])}: known by their text alone"] if found["unseen"] else []),
        ("Encoder", _encoder(encoder)),
        ("Head", [key if key == choice else f"{key}: {choice}"]),
    ]
    rows += [("Tuning", _lines([found["tuning"]])), ("Asked", _asked(found["asked"]))]
    if found["compressed"] is not None:
        small = found["compressed"]
        kept = f"{100 * small['density']:.3g} % of its numbers kept, {small['ratio']:.1f} times smaller than in 16 bits"
        rows.append(("Compressed", [kept]))
    if found["experiment"] is not None:
        rows.append(("Experiment", [visible(found["experiment"], PATH)]))
    if found["unlabelled"] is not None:
        rows.append(("Unlabelled", [visible(found["unlabelled"]["use"], PATH)]))
    rows += [("Privacy", privacy(found["private"])), ("Withheld", withheld(found["private"]))]
    rows.append(("Certificate", _lines([found["certificate"]])))
    if found["accuracy"] is not None:
        rows.append(("Accuracy", [short("accuracy", found["accuracy"]), *_lines([found["method"]])]))
    rows.append(("Labels", _sets(found)))
    rows.append(("Speaks for", _lines([found["population"]])))
    return [*rows, ("None", _none(found["reject"]))]


def _asked(asked: Mapping[str, Any] | None) -> list[str]:
    """How a language model is asked."""
    if asked is None:
        return []
    shown = [f"{count(asked['shown'], 'example')} shown with every question"] if asked["shown"] else []
    if asked["template"] is None:
        return ["at masks beside the text", *shown]
    return [repr(visible(asked["template"], PATH)), f"answers: {some(asked['answers'])}", *shown]


def _sets(found: Mapping[str, Any]) -> list[str]:
    """How several labels are written, and how well they are given."""
    sets = found["label_sets"]
    if sets is None:
        return []
    words = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "exact_match": "exact match"}
    shown = [f"{word} {short(name, sets[name])}" for name, word in words.items() if sets[name]]
    none = ", " + (repr(visible(sets["none"], CELL)) if sets["none"] else "an empty cell") + " stands for none of them"
    none = none if sets["none"] is not None else ""
    written = f"several an item, with {visible(sets['separator'], CELL)!r} between them{none}"
    return [written, *([", ".join(shown)] if shown else []), *_lines([found["method"]])]


def _none(reject: Mapping[str, Any] | None) -> list[str]:
    """What it calls items of none of its classes, and what that is worth."""
    if reject is None:
        return []
    other, kind = visible(reject["other"], CELL), visible(reject["kind"], CELL)
    lines = [f"it answers {other} for items of none of its classes, by {kind}"]
    told = {"false_alarms": "of items of its classes", "found": "of items of none of them"}
    told |= {"auroc": "AUROC", "fpr95": "FPR95"}
    shown = [f"{short(name, reject[name])} {words}" for name, words in told.items() if reject[name]]
    return [*lines, *([", ".join(shown)] if shown else []), *_lines([reject["method"]])]


def _encoder(encoder: Mapping[str, Any]) -> list[str]:
    if encoder["name"] is None:
        return [f"none: it takes features of {count(encoder['dim'], 'number')}"]
    where = "inside the file" if encoder["inside"] else "not inside: it must be on the machine that predicts"
    options = [f"{visible(k, CELL)} {visible(v, CELL)}" for k, v in encoder["options"].items()]
    lines = [f"{visible(encoder['name'], PATH)}, {where}", f"identity: {visible(encoder['fingerprint'], PATH)}"]
    return lines + ([f"options: {', '.join(options)}"] if options else [])


def _provenance(made: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    versions = [f"{visible(k, CELL)} {visible(v, CELL)}" for k, v in made["versions"].items()]
    seed = made["seed"]
    hashes = [f"{visible(digest, CELL + 4)}  {visible(name, PATH)}" for name, digest in made["sha256"].items()]
    return [
        ("Made by", [f"handful {visible(made['handful'], CELL)}" + (f", seed {seed}" if seed is not None else "")]),
        ("With", [", ".join(versions)] if versions else []),
        ("Command", _lines([made["command"]])),
        ("Sources", _lines(made["sources"])),
        ("SHA-256", [*hashes[:MOST], *_more(hashes)]),
        ("Grown", _lines([_grown(step) for step in made["grown"]])),
    ]


def _grown(step: Mapping[str, Any]) -> str:
    origin = "a model in memory" if step["from"] is None else f"the model {step['from'][:16]}…"
    return f"{step['when']} from {origin}: {some(step['classes'])}"


def _personal(found: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    has = found["personal"]
    vectors = ["no vector of a single example"]
    if has["example_vectors"]:
        vectors = [
            f"the vectors of {count(has['example_vectors'], 'example')}, in {some(has['example_tensors'], 3)}: who has "
            "the encoder can test whether a text or picture was among them",
        ]
    elif has["single_examples"]:
        alone = count(has["single_examples"], "class has", "classes have")
        vectors = [f"{alone} a single example, and may show its vector"]
    nothing = "no texts and no pictures: the format has no place for them"
    if has["texts"]:
        nothing = f"{count(found['asked']['shown'], 'example')} as text, word for word: a language model is shown them"
    nothing += ", but see the foreign members" * bool(found["foreign"])
    foreign = f"{count(len(found['foreign']), 'member')} no model has, never read: {some(found['foreign'], 3)}"
    return [
        ("Examples", [*vectors, nothing]),
        ("Classes", [f"the names of {len(has['class_names'])}" + (", and their vectors" * has["class_vectors"])]),
        ("Columns", [some(has["columns"])] if has["columns"] else []),
        ("Paths", _lines(has["paths"])),
        ("Items", _lines(has["items"])),
        ("Foreign", [foreign] if found["foreign"] else []),
    ]


def _sizes(found: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    rows = [(visible(row["part"], CELL), [_size(row["bytes"])]) for row in found["sizes"]]
    return [*rows, ("in all", [_size(found["bytes"])])]


def _lines(texts: Sequence[str | None]) -> list[str]:
    """A line a text, the first few; none where there is none."""
    there = [visible(text, PATH) for text in texts if text]
    return [*there[:MOST], *_more(there)]


def _more(lines: Sequence[str]) -> list[str]:
    return [f"and {len(lines) - MOST:,} more"] if len(lines) > MOST else []


def _size(n: int) -> str:
    return f"{n:,} bytes" if n < 1 << 20 else f"{n / 2**20:,.1f} MiB"
