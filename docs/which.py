"""What to use when: the tables and sentences of ``which-head.md``, all of them from ``benchmarks/results/heads.json``.

A comparison is one head beside `prototypes` on one set, with one number of shots and balanced or imbalanced queries:
the mean of the paired differences over episodes, and Student's interval. There are so many that some would look
different were all heads equal; p-values are therefore Holm's over all comparisons of the page, and only a difference
that stands then is called better or worse.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from results import RESULTS, SETS, table  # beside this file
from scipy import special

from handful.adapt import HEADS, head_class
from handful.adapt.growing import Growing
from handful.adapt.open_head import OpenHead
from handful.adapt.prototypes import Prototypes
from handful.adapt.signatures import SignatureHead
from handful.evaluate.significance import LEVEL, holm

REFERENCE, AUTO = "prototypes", "auto"
PLAIN = " without names"
"""What the benchmark calls heads that can do without names of classes when they have none."""
SHOTS = (1, 5, 16)
CERTIFIED = ("private-logistic", "private-search", "steel")
GROUPS = {
    "labels": "A few labels and nothing else",
    "names": "Class names as well",
    "together": "All queries at once, or a pool",
    "growing": "Classes that come later",
    "none": "Items of none of the classes",
    "signatures": "Classes without examples",
    "views": "More than one vector an item",
    "base": "Other classes with many examples",
    "several": "Several labels an item",
    "private": "Privacy and certificates",
}
BETTER, WORSE = " ▲", " ▼"
NEW = "not run yet"
Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """A head in one cell; ``gain`` in points (value, half width), ``sign`` 1 and -1 for better and worse, or 0."""

    head: str
    set: str
    shots: int
    uneven: bool
    accuracy: dict[str, float]
    gain: tuple[float, float] | None
    sign: int

    def __str__(self) -> str:
        """Its mean and interval; below, its gain and the interval of that."""
        low, mean, high = (100 * self.accuracy[name] for name in ("low", "value", "high"))
        seen = f"{mean:.1f} [{low:.1f}, {high:.1f}]"
        if self.gain is None:
            return seen
        value, half = self.gain
        return f"{seen}<br>{_signed(value)} [{_signed(value - half)}, {_signed(value + half)}]{_mark(self.sign)}"


def group_of(key: str, named: bool) -> str:
    """Where a head belongs, the first of what sets it apart; ``named``: whether it was also run without names."""
    kind = head_class(key.removesuffix(PLAIN))
    needs = kind.needs
    apart = {
        "several": needs.multi_label,
        "private": kind.key in CERTIFIED,
        "none": issubclass(kind, OpenHead),
        "signatures": issubclass(kind, SignatureHead),
        "together": needs.transductive,
        "growing": issubclass(kind, Growing) and not issubclass(kind, Prototypes),
        "views": bool(needs.views),
        "names": needs.text or (named and not key.endswith(PLAIN)),
        "base": needs.background,
    }
    return next((group for group, is_so in apart.items() if is_so), "labels")


def members(group: str, rows: Sequence[Row]) -> list[str]:
    """The heads of a group, as they are listed."""
    run = {row["head"] for row in rows}
    keys = [each for key in HEADS for each in (key, key + PLAIN) if each == key or each in run]
    return [key for key in keys if group_of(key, key + PLAIN in run) == group]


def compared(rows: Iterable[Row]) -> list[Comparison]:
    """Every row that was measured, its sign corrected for how many comparisons there are."""
    seen = [row for row in rows if "accuracy" in row]
    tested = [row for row in seen if row["gain"] is not None]
    adjusted = dict(zip(map(id, tested), holm([_p(row) for row in tested]), strict=True))
    found = []
    for row in seen:
        gain = row["gain"]
        points = None if gain is None else (100 * gain["value"], 50 * (gain["high"] - gain["low"]))
        sign = 0 if gain is None or adjusted[id(row)] >= LEVEL else 1 if gain["value"] > 0 else -1
        cell = row["set"], row["shots"], row["imbalance"] is not None
        found.append(Comparison(row["head"], *cell, row["accuracy"], points, sign))
    return found


def _p(row: Row) -> float:
    """Student's p-value of a gain, from its interval and the number of episodes."""
    value, half, freedom = row["gain"]["value"], (row["gain"]["high"] - row["gain"]["low"]) / 2, row["episodes"] - 1
    if half <= 0:
        return 1.0 if value == 0 else 0.0
    error = half / special.stdtrit(freedom, 1 - LEVEL / 2)
    return float(2 * special.stdtr(freedom, -abs(value) / error))


def verdict(some: Sequence[Comparison]) -> str:
    """What all comparisons of one head say together."""
    signs = Counter(c.sign for c in some if c.gain is not None)
    if not signs[1]:
        return "**never better**" if signs[-1] else "no difference shown"
    return "mixed" if signs[-1] else "better, never worse"


def mean_gain(some: Sequence[Comparison]) -> tuple[float, float] | None:
    """Mean gain over cells, each of equal weight, and the half width of its interval, the sets being as they are.

    Episodes of different sets have nothing to do with each other; those of one set are taken to err alike.
    """
    gains = [(c.set, *c.gain) for c in some if c.gain is not None]
    if not gains:
        return None
    of_sets = [sum(half for name, _, half in gains if name == each) for each in {name for name, *_ in gains}]
    return float(np.mean([value for _, value, _ in gains])), float(np.linalg.norm(of_sets) / len(gains))


def by_head(keys: Sequence[str], all_: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """The comparisons of each of the heads that has any, what gained most with balanced queries first."""
    found = {key: [c for c in all_ if c.head == key and c.gain is not None] for key in keys}
    found = {key: some for key, some in found.items() if some}
    means = {key: mean_gain([c for c in some if not c.uneven]) or (0.0, 0.0) for key, some in found.items()}
    return {key: found[key] for key in sorted(found, key=lambda key: -means[key][0])}


def summary(keys: Sequence[str], all_: Sequence[Comparison]) -> str:
    """A row for each head: the verdict, mean gains, and in how many cells it was better and worse."""
    cells = Counter((c.shots, c.uneven) for c in all_ if c.head == REFERENCE)
    rows = []
    for key, mine in by_head(keys, all_).items():
        points = []
        for uneven, shots in [(False, (k,)) for k in SHOTS] + [(kind, SHOTS) for kind in (False, True)]:
            part = [c for c in mine if c.uneven is uneven and c.shots in shots]
            most = sum(cells[k, uneven] for k in shots)
            points.append(_points(mean_gain(part)) + (f" ({len(part)} of {most})" if 0 < len(part) < most else ""))
        signs = Counter(c.sign for c in mine)
        counts = f"{signs[1]} of {len(mine)}", f"{signs[-1]} of {len(mine)}"
        rows.append((_code(key), verdict(mine), *counts, *points))
    head = ("Head", "Verdict", "Better", "Worse", *map(_shots, SHOTS), "All balanced", "All imbalanced")
    return table(head, rows)


def most_gained(found: dict[str, list[Comparison]], shots: int) -> tuple[str, list[Comparison]] | None:
    """The head with the largest mean gain over sets with balanced queries, and its comparisons there; among those that
    were run on as many sets as any."""
    cells = {key: [c for c in some if c.shots == shots and not c.uneven] for key, some in found.items()}
    widest = max(map(len, cells.values()), default=0)
    means = {key: mean_gain(some) for key, some in cells.items() if some and len(some) == widest}
    best = max(means, key=lambda key: means[key] or (0.0, 0.0), default=None)
    return None if best is None else (best, cells[best])


def sentence(keys: Sequence[str], all_: Sequence[Comparison]) -> str:
    """The verdict on a group, in words."""
    found = by_head(keys, all_)
    words = []
    for k in SHOTS:
        if best := most_gained(found, k):
            won, lost = (sum(c.sign == sign for c in best[1]) for sign in (1, -1))
            where = f"better on {won} of {len(best[1])} sets" + (f", worse on {lost}" if lost else "")
            words.append(f"{_shots(k)}: {_code(best[0])}, {_points(mean_gain(best[1]))} points, {where}")
    parts = [f"**Most gained** over `{REFERENCE}`, mean over sets. {'; '.join(words)}."] if words else []
    for said, title in (("**never better**", "Never better, somewhere worse"), ("no difference shown",) * 2):
        if some := [key for key in found if verdict(found[key]) == said]:
            parts.append(f"**{title[0].upper()}{title[1:]}**: {', '.join(map(_code, some))}.")
    if some := [key for key in found if _swayed(found[key])]:
        parts.append(
            f"**Gain with balanced queries, lose with imbalanced ones**, on average: {', '.join(map(_code, some))}."
        )
    return "\n".join(f"- {part}" for part in parts)


def _swayed(some: Sequence[Comparison]) -> bool:
    """Whether the mean gain is above zero with balanced queries and below with others, by both intervals."""
    even, uneven = (mean_gain([c for c in some if c.uneven is kind]) for kind in (False, True))
    return even is not None and uneven is not None and even[0] - even[1] > 0 > uneven[0] + uneven[1]


def details(keys: Sequence[str], all_: Sequence[Comparison]) -> str:
    """A table for each set, folded: every head in every cell."""
    blocks = []
    for name in dict.fromkeys(c.set for c in all_):
        here = {(c.head, c.shots, c.uneven): c for c in all_ if c.set == name and c.head in keys}
        cells = sorted({key[1:] for key in here})
        order = [key for key in [REFERENCE, *by_head(keys, all_)] if any(found[0] == key for found in here)]
        rows = [(_code(key), *(str(here.get((key, *cell), "")) for cell in cells)) for key in order]
        head = ("Head", *(f"{_shots(shots)}{', imbalanced' if uneven else ''}" for shots, uneven in cells))
        if rows:
            body = "\n".join(f"    {line}" for line in table(head, rows).splitlines())
            blocks.append(f'??? note "{SETS.get(name, name)}: every cell"\n\n{body}')
    return "\n\n".join(blocks)


def left_out(keys: Sequence[str], rows: Sequence[Row]) -> str:
    """What was not measured, and why; a head may have been written after the benchmark was run."""
    cells = {_cell(row) for row in rows}
    words = []
    for key in keys:
        mine = {_cell(row): row for row in rows if row["head"] == key}
        reasons = [_reason(mine[cell]["missing"]) if cell in mine else NEW for cell in cells if _gone(mine.get(cell))]
        if reasons:
            where = "" if len(reasons) == len(cells) else f" in {len(reasons)} of {len(cells)} cells"
            words.append(f"{_code(key)}{where} ({'; '.join(sorted(set(reasons)))})")
    return f"Not measured: {', '.join(words)}." if words else ""


def _cell(row: Row) -> tuple[str, int, float | None]:
    return row["set"], row["shots"], row["imbalance"]


def _gone(row: Row | None) -> bool:
    return row is None or "missing" in row


def which(group: str) -> str:
    """All there is about a group; ``glance``, ``count`` and ``episodes`` are about all of them."""
    all_, rows = _read()
    if group in _ALL:
        return _wide(_ALL[group](all_, rows)) if group == "glance" else _ALL[group](all_, rows)
    own = members(group, rows)
    beside = [key for key in (REFERENCE, AUTO) if key not in own]
    parts = [sentence(own, all_)]
    if by_head(own, all_):
        keys = [*beside, *own]
        parts += [_wide(summary(keys, all_)), left_out(own, rows), _wide(details(keys, all_))]
    else:
        parts.append(left_out(own, rows))
    return "\n\n".join(part for part in parts if part)


def glance(all_: Sequence[Comparison], rows: Sequence[Row]) -> str:
    """A row for each group: how many of its heads were ever better, and which gained most."""
    lines = []
    for group, title in GROUPS.items():
        found = by_head(members(group, rows), all_)
        best = [most_gained(found, k) for k in SHOTS]
        most = [f"{_code(b[0])} {_points(mean_gain(b[1]))}" if b else "" for b in best]
        helped = sum(any(c.sign == 1 for c in some) for some in found.values())
        link = title.lower().replace(",", "").replace(" ", "-")
        counts = (str(len(found)), str(helped)) if found else ("judged otherwise", "")
        lines.append((f"[{title}](#{link})", *counts, *most))
    return table(("You have", "Heads", "Ever better", *(f"Most gained, {_shots(k)}" for k in SHOTS)), lines)


def count(all_: Sequence[Comparison], _: Sequence[Row]) -> str:
    """How many comparisons there are, and how many are marked."""
    signs = Counter(c.sign for c in all_ if c.gain is not None)
    return f"Of {signs.total():,} comparisons on this page {signs[1]:,} are marked better and {signs[-1]:,} worse."


def episodes(_: Sequence[Comparison], rows: Sequence[Row]) -> str:
    """How many there were, of each set."""
    seen: dict[int, list[str]] = {}
    for row in rows:
        if row["head"] == REFERENCE and row["set"] not in seen.setdefault(row["episodes"], []):
            seen[row["episodes"]].append(row["set"])
    many = "; ".join(f"{n} on {', '.join(SETS[name].split(',')[0] for name in names)}" for n, names in seen.items())
    fewest = min(row["episodes"] for row in rows if "episodes" in row)
    return f"Episodes a cell: {many}. Slow heads saw the first of these only, though never fewer than {fewest}."


_ALL = {"glance": glance, "count": count, "episodes": episodes}


@cache
def _read() -> tuple[list[Comparison], list[Row]]:
    rows = json.loads((RESULTS / "heads.json").read_text(encoding="utf-8"))["rows"]
    return compared(rows), rows


def _wide(text: str) -> str:
    """Tables in the style of ``measured.css``."""
    return f'<div class="measured" markdown>\n\n{text}\n\n</div>'


def _reason(text: str) -> str:
    """Without the numbers of one cell."""
    if "an episode" in text:
        return "too slow"
    return "features below zero" if text.startswith("Negative values") else text


def _mark(sign: int) -> str:
    return BETTER if sign > 0 else WORSE if sign < 0 else ""


def _points(gain: tuple[float, float] | None) -> str:
    return "" if gain is None else f"{_signed(gain[0])} ± {gain[1]:.1f}"


def _signed(points: float) -> str:
    """With its sign; zero has none below."""
    return f"{round(points, 1) + 0.0:+.1f}"


def _shots(k: int) -> str:
    return f"{k} shot{'s' * (k > 1)}"


def _code(key: str) -> str:
    bare = key.removesuffix(PLAIN)
    return f"`{bare}`{key[len(bare) :]}"
