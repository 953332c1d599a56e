"""Cards made by hand, the examples beside them, and a page taken apart: what the tests of the report share."""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np

from handful.evaluate import assess
from handful.ship.evidence import Evidence, Example

DATE = datetime.datetime(2026, 3, 14, 15, 9, tzinfo=datetime.UTC)
VOID = {"meta", "link", "br", "wbr", "path", "rect", "circle", "hr", "img", "input"}
INLINE = {"wbr", "span", "code", "strong", "q"}
HOSTILE = "<script>alert(1)</script>&amp;[/refund]\x1b[31m\u202egpj.exe\x00\u200b\ud800\"'=HYPERLINK(1)"
SPELT = "<script>alert(1)</script>&amp;[/refund]⟨U+001B⟩[31m⟨U+202E⟩gpj.exe⟨U+0000⟩⟨U+200B⟩⟨U+D800⟩\"'=HYPERLINK(1)"


class Page(HTMLParser):
    """A page taken apart; fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in INLINE:
            self.words.append(" ")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        """What a reader sees, blanks collapsed."""
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every such tag."""
        return [attrs for name, attrs in self.tags if name == tag]

    def part(self, anchor: str) -> str:
        """The text from the heading with this beginning to the end of the page."""
        return self.text[self.text.index(anchor) :]


def estimate(value: float, width: float = 0.05) -> dict[str, float]:
    """An estimate with its interval."""
    return {"value": value, "low": max(value - width, 0.0), "high": min(value + width, 1.0)}


def assessment(classes: list[str], n: int, seed: int = 0) -> dict[str, Any]:
    """Of a model that is right about four times in five."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % len(classes)
    logits = rng.normal(size=(n, len(classes))) + (1 + len(classes) ** 0.3) * np.eye(len(classes))[codes]
    proba = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return assess(np.asarray(classes)[codes], proba, classes).as_dict()


def make_card(classes: list[str] | None = None, n: int = 60, **changes: Any) -> dict[str, Any]:
    """A card as `fit` makes it, without the parts that `full_card` adds."""
    names = sorted(classes or ["double_charge", "invoice", "refund"])
    card: dict[str, Any] = {
        "schema": 1,
        "handful": "0.1.0",
        "seed": 7,
        "metric": "accuracy",
        "task": {
            "sources": ["data/tickets.csv"],
            "sha256": {"data/tickets.csv": "ab" * 32},
            "modality": "text",
            "columns": {"text": ["subject", "body"], "image": None, "label": "intent"},
            "n": n,
            "pool": 1234,
            "classes": [{"name": c, "count": 20} for c in names],
            "notes": ["column id was taken for no text"],
            "skipped": ["tickets.csv row 17: empty text"],
        },
        "encoder": {"name": "minilm", "fingerprint": "minilm:53aa", "dim": 384},
        "head": {"key": "auto", "choice": "gda", "parameters": {"metric": "accuracy"}, "why": "best by leave-one-out"},
        "candidates": [
            {"key": "prototypes", "score": 0.78125, "chosen": False},
            {"key": "gda", "score": 0.8421, "chosen": True},
        ],
        "class_text": {"used": True, "weight": 0.5, "reason": "names agree with the examples"},
        "estimate": {"method": "5 stratified folds over 60 labelled items", "assessment": assessment(names, n)},
        "test": None,
        "experiment": None,
        "seconds": {"read": 0.1, "encode": 2.25},
    }
    return {**card, **changes}


def full_card(classes: list[str] | None = None, n: int = 60, **changes: Any) -> dict[str, Any]:
    """A card with every part."""
    card = make_card(classes, n)
    names = [c["name"] for c in card["task"]["classes"]]
    card["estimate"] |= {
        "accuracy": estimate(0.84, 0.06),
        "groups": {"count": n - 3, "largest": 3, "by": "'customer' and near-duplicates"},
    }
    card |= {
        "population": {
            "kind": "file",
            "source": "shares.csv",
            "shares": dict.fromkeys(names, 1 / len(names)),
            "sentence": "the classes as often as in shares.csv",
        },
        "selective": {
            "target": 0.95,
            "threshold": 0.62,
            "coverage": estimate(0.71, 0.06),
            "precision": estimate(0.95, 0.03),
            "table": [
                {"threshold": t, "coverage": estimate(c), "precision": estimate(p), "n": int(n * c)}
                for t, c, p in ((0.0, 1.0, 0.83), (0.5, 0.8, 0.92), (0.8, 0.5, 0.97))
            ],
            "note": None,
        },
        "cost": {
            "source": "costs.csv",
            "matrix": [[0 if i == j else 1 + 4 * (i == 0) for j in range(len(names))] for i in range(len(names))],
            "mean": {"value": 0.31, "low": 0.25, "high": 0.39},
            "plain": {"value": 0.44, "low": 0.36, "high": 0.53},
        },
        "reject": {
            "kind": "distance",
            "other": "other",
            "asked": 0.05,
            "source": "elsewhere.csv",
            "threshold": 12.5,
            "basis": "negatives",
            "method": "40 items of none of the classes and 60 labelled ones",
            "known": n,
            "unknown": 40,
            "false_alarms": estimate(0.04, 0.03),
            "found": estimate(0.72, 0.08),
            "auroc": estimate(0.91, 0.04),
            "fpr95": estimate(0.3, 0.1),
        },
        "shots_curve": [
            {"shots": s, "n": s * len(names), "accuracy": estimate(a, 0.1 / s**0.5)}
            for s, a in ((1, 0.55), (2, 0.66), (5, 0.74), (10, 0.791), (20, 0.84))
        ],
        "suspicious": [
            {
                "where": f"tickets.csv row {row}",
                "given": names[0],
                "suggested": names[-1],
                "p_given": 0.02,
                "p_suggested": 0.93,
                "row": row,
            }
            for row in (5, 9)
        ],
        "duplicates": {
            "items": n,
            "units": n - 3,
            "conflicts": [
                {
                    "where": ["tickets.csv row 12", "tickets.csv row 40"],
                    "labels": [names[0], names[-1]],
                    "rows": [12, 40],
                }
            ],
        },
        "blind_spots": [
            {
                "kind": "cut",
                "n": 14,
                "of": n,
                "message": "14 texts are longer than the encoder reads; --long mean reads all",
                "where": [f"tickets.csv row {i}" for i in range(14)],
            }
        ],
        "private": {
            "epsilon": 3.9996,
            "delta": 1 / n,
            "relation": "one example added or removed",
            "replace_one": {"epsilon": 7.9992, "delta": 0.93},
            "accountant": "Rényi moments by an accountant",
            "withheld": ["near-duplicates"],
            "public": ["how many examples there are"],
        },
        "certificate": {"statement": "with probability 0.95 the error on new items is at most 21.8 %"},
        "provenance": {"command": "handful fit tickets.csv", "versions": {"python": "3.11.9", "torch": "2.9.1"}},
    }
    return {**card, **changes}


def make_examples(card: dict[str, Any], example: Callable[[int], Example]) -> Evidence:
    """Three rows for each confused pair, and an example for every row that is named."""
    pairs = [(p["true"], p["predicted"]) for p in card["estimate"]["assessment"]["confused"]]
    confused = {pair: [100 + 3 * i + j for j in range(3)] for i, pair in enumerate(pairs)}
    rows = [5, 9, 12, 40, *(row for rows in confused.values() for row in rows)]
    return Evidence(confused, {row: example(row) for row in rows})


def text_example(row: int) -> Example:
    """A text that names its row."""
    return Example(f"tickets.csv row {row}", text=f"Text of row {row}, about a payment")


def picture_example(row: int) -> Example:
    """A small PNG of one grey."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (96, 64), (row % 256,) * 3).save(buffer, "PNG")
    return Example(f"photos/{row}.png", thumbnail=buffer.getvalue())


def strings(value: Any, put: str) -> Any:
    """The same card with every string in it replaced."""
    if isinstance(value, dict):
        renamed = ("data/tickets.csv", "python", "torch")
        return {strings(key, put) if key in renamed else key: strings(item, put) for key, item in value.items()}
    if isinstance(value, list):
        return [strings(item, put) for item in value]
    return put if isinstance(value, str) else value
