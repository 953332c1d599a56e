"""Tables of ``benchmarks/results`` for the pages: written while the site is built, never by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from handful.core.intervals import clopper_pearson, mean_interval, mean_of_means

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
SETS = {
    "banking77": "Banking77, 77 intents",
    "banking77-codes": "Banking77, codes for names",
    "banking77-permuted": "Banking77, names shuffled",
    "trec": "TREC",
    "agnews": "AG News",
    "sst-2": "SST-2",
    "sst-5": "SST-5",
    "cr": "CR",
    "mr": "MR",
    "subj": "Subj",
    "whu-rs19": "WHU-RS19, aerial photographs",
    "omniglot": "Omniglot, 136 characters",
    "fashion-mnist": "Fashion-MNIST",
}
TASKS = {
    "banking77-10": "Banking77, ten intents",
    "banking77-77": "Banking77, 10 examples each",
    "cr-183-20": "CR, 183 to 20, Matthews' correlation x 100",
}
KINDS = {
    "plain": "as they are",
    "thrice": "every example given three times",
    "stream": "balanced shots, for a stream of other shares",
}


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def numbers(which: str) -> str:
    """The table of that name: a key of `_TABLES`."""
    return _TABLES[which]()


def _accuracy() -> str:
    rows = [
        (
            SETS.get(row["set"], row["set"]),
            str(row["shots"]),
            *(_estimate(row["accuracy"][name]) for name in ("auto", "scikit-learn")),
            _estimate(row["gain"], "+.1f"),
        )
        for row in _read("accuracy")["rows"]
    ]
    return table(("Data set", "Shots", "`auto`, %", "scikit-learn, %", "Gain, paired, points"), rows)


def _held() -> str:
    """How often the interval held, all data sets together."""
    parts = []
    for kind, words in KINDS.items():
        rows = [row for row in _read("trust")["rows"] if row["kind"] == kind]
        held, draws = sum(row["held"] for row in rows), sum(row["draws"] for row in rows)
        share = {name: 100 * value for name, value in clopper_pearson(held, draws).as_dict().items()}
        parts.append((words, str(len(rows)), f"{held} of {draws}", _estimate(share)))
    return table(("Examples", "Data sets", "The interval held", "%"), parts)


def _trust() -> str:
    rows = [
        (
            SETS.get(row["set"], row["set"]),
            str(row["shots"]),
            KINDS.get(row["kind"], row["kind"]),
            f"{row['held']} of {row['draws']}",
            _estimate(row["gap"], "+.1f"),
            f"{row['points']:.1f}",
            f"{row['width']:.2f}",
        )
        for row in _read("trust")["rows"]
    ]
    return table(("Data set", "Shots", "Examples", "Held", "Mean gap, points", "Width, points", "Of binomial"), rows)


def _precision() -> str:
    rows = [
        (
            SETS.get(row["set"], row["set"]),
            str(row["shots"]),
            f"{row['precision']['thresholds']} of {row['draws']}",
            f"{row['precision']['held']} of {row['precision']['thresholds']}",
        )
        for row in _read("trust")["rows"]
        if row["precision"]
    ]
    return table(("Data set", "Shots", "A threshold was found", "Its interval held"), rows)


def _reject() -> str:
    """A row for each data set, number of shots and kind."""
    rows = [
        (
            SETS.get(row["set"], row["set"]),
            str(row["shots"]),
            f"`{kind}`",
            *(_estimate(row[kind][name]) for name in ("auroc", "fpr95", "false_alarms", "found", "simulated")),
        )
        for row in _read("reject")["rows"]
        for kind in ("energy", "probability", "distance", "gpam")
    ]
    head = ("Data set", "Shots", "Kind", "AUROC, %", "FPR95, %", "False alarms, %", "Found, %", "Simulated AUROC, %")
    return table(head, rows)


def _pool() -> str:
    rows = [
        (
            SETS.get(row["set"], row["set"]),
            str(row["shots"]),
            _estimate(row["accuracy"]),
            *(_estimate(row["gain"][kind], "+.1f") for kind in ("all", "few", "uneven", "half")),
        )
        for row in _read("pool")["rows"]
    ]
    return table(("Data set", "Shots", "`auto` without, %", "All", "50", "Uneven", "Half"), rows)


def _speed() -> str:
    rows = [
        (f"{run['title']}, {run['n']} items", row["name"], f"{r['median']:.1f} [{r['least']:.1f}, {r['most']:.1f}]")
        for run in _read("encode")["speed"]
        for row, r in ((row, row["ratio"]["wall"]) for row in run["rows"])
    ]
    return table(("Encoder and data", "Program", "Times as fast, median [least, most]"), rows)


def _episodes() -> str:
    rows = [
        (
            f"`{run['method']}`",
            str(run["shots"]),
            f"{run['handful']:,.0f}",
            f"{run['easyfsl']:,.0f}",
            f"{run['ratio']:.1f}",
            f"{100 * run['accuracy_same_episodes']:.1f} and {100 * run['accuracy_easyfsl']:.1f}",
        )
        for run in _read("episodes")["results"]
    ]
    return table(("Method", "Shots", "Handful, episodes/s", "easyfsl, episodes/s", "Ratio", "Accuracy, %"), rows)


def _forecast() -> str:
    found = _read("forecast")
    words = {"card": "a model's card", "test set": "accuracy on a test set"}
    rows = [
        (
            f"{start}, {weight}",
            *(_estimate(found[kind][key][name]) for name in ("power", "forecast", "below power", "forest", "held")),
        )
        for kind, start in words.items()
        for key, weight in (("all", "all curves equal"), ("families equal", "families equal"))
    ]
    head = (
        "Pilot",
        "Power law, points",
        "`forecast`, points",
        "Less, %",
        "Forest of 069, points",
        "90 % interval held, %",
    )
    return table(head, rows)


def _next() -> str:
    rows = [
        (
            "those the rule was chosen on" if row["chosen on"] else "others",
            row["head"],
            row["case"],
            str(row["replays"]),
            _estimate(row["gain"], "+.1f"),
            f"{row['won']} and {row['lost']}",
        )
        for row in _read("next")["together"]
    ]
    return table(("Sets", "Head", "Labels before", "Sets x cases", "Gain, points", "Gained and lost"), rows)


def _setfit() -> str:
    runs = {"20 iterations": _read("setfit"), "all pairs, stopped": _read("setfit_default")}
    rows = [(how, str(len(run["rows"])), _estimate(run["gain"], "+.1f"), *_seconds(run)) for how, run in runs.items()]
    return table(("SetFit", "Draws", "Gain of Handful, points", "Handful, s", "SetFit, s"), rows)


def _seconds(run: dict[str, Any]) -> Iterator[str]:
    for name in ("handful_s", "setfit_s"):
        seconds = [row[name] for row in run["rows"]]
        yield f"{min(seconds):.1f} to {max(seconds):.1f}"


def _tuning(peer: str) -> str:
    """Handful's ``auto`` beside a peer, and what tuning alone takes; means over draws, differences paired."""
    of = {(row["set"], row["recipe"], row["seed"]): row for row in _read("tuning")["rows"]}
    draws = {name: sorted(s for n, recipe, s in of if (n, recipe) == (name, peer)) for name, *_ in of}
    draws = {name: [s for s in seeds if (name, "auto", s) in of] for name, seeds in draws.items()}

    def mean(name: str, recipe: str, what: str) -> float:
        return sum(of[name, recipe, s][what] for s in draws[name]) / len(draws[name])

    def gain(name: str, seed: int) -> float:
        return float(of[name, "auto", seed]["score"] - of[name, peer, seed]["score"])

    rows = []
    shown = [name for name, seeds in draws.items() if len(seeds) > 1]
    for name in shown:
        scores = (f"{mean(name, recipe, 'score'):.1f}" for recipe in ("none", "auto", peer))
        seconds = (f"{mean(name, recipe, 'seconds'):.0f}" for recipe in ("lora", "auto", peer))
        difference = mean_interval([gain(name, s) for s in draws[name]]).as_dict()
        rows.append(
            (TASKS.get(name) or SETS[name], str(len(draws[name])), *scores, _estimate(difference, "+.1f"), *seconds)
        )
    even = [name for name in shown if name != "cr-183-20"]
    means = {"mean": even} if len(even) == len(shown) else {"mean of the accuracies": even, "mean of all": shown}
    for what, names in means.items() if len(shown) > 1 else ():
        whole = mean_of_means([[gain(name, s) for s in draws[name]] for name in names]).as_dict()
        rows.append((what, "", "", "", "", _estimate(whole, "+.1f"), "", "", ""))
    head = ("Task", "Draws", "Frozen", "`tune auto`", peer, "Difference", "Tuning, s", "`auto`, s", f"{peer}, s")
    return table(head, rows)


def _private() -> str:
    rows = _read("private")["rows"]
    budgets = list(dict.fromkeys(row["epsilon"] for row in rows))
    found = {(row["shots"], row["epsilon"]): f"{100 * row['accuracy']:.1f}" for row in rows}
    body = [(str(shots), *(found[shots, e] for e in budgets)) for shots in dict.fromkeys(row["shots"] for row in rows)]
    return table(("Shots", *(_epsilon(e) for e in budgets)), body)


def _multipliers() -> str:
    found = _read("private")["multipliers"]
    budgets = [e for e in next(iter(found.values())) if e != "inf"]
    body = [
        (s0, *("more than were run" if by[e] is None else f"{by[e]:.1f}" for e in budgets)) for s0, by in found.items()
    ]
    return table(("Shots without privacy", *(f"epsilon {e}" for e in budgets)), body)


def _attacks() -> str:
    body = [
        (
            _epsilon(row["epsilon"]),
            f"{row['auc']:.2f}",
            *(
                f"{100 * row['tpr'][rate]:.1f}" + (f" (at most {100 * row['bound'][rate]:.0f})" if row["bound"] else "")
                for rate in ("0.01", "0.1")
            ),
        )
        for row in _read("private")["attacks"]
    ]
    return table(("Budget", "AUC", "Members found at 1 % false alarms, %", "at 10 %"), body)


def _epsilon(epsilon: float | None) -> str:
    return "no privacy" if epsilon is None else f"epsilon {epsilon:g}"


def _compeft() -> str:
    """What compressing a tuned encoder costs, draws paired."""
    every = _read("compeft")["rows"]
    rows = []
    for name in dict.fromkeys(row["set"] for row in every):
        mine = [row for row in every if row["set"] == name]
        lost = [
            _estimate(mean_interval([row[how]["accuracy"] - row["tuned"] for row in mine]).as_dict(), "+.1f")
            for how in ("plain", "balanced")
        ]
        ratio = min(row[how]["ratio"] for row in mine for how in ("plain", "balanced"))
        tuned = sum(row["tuned"] for row in mine) / len(mine)
        label = TASKS.get(name) or SETS[name]
        rows.append((label, str(len(mine)), f"{tuned:.1f}", *lost, f"{ratio:.1f}"))
    head = ("Data set", "Draws", "Tuned, %", "As it is, points", "`balanced`, points", "Times smaller than in 16 bits")
    return table(head, rows)


def _lora_sb() -> str:
    """Accuracies at the setting that was chosen on another draw, and what is between the two methods."""
    rows = _read("lora_sb")["rows"]
    words = {"frozen": "no change", "rule": "LoRA-SB, first step of the warm-up's rate"}
    body = []
    for name, rank in dict.fromkeys((row["set"], row["rank"]) for row in rows):
        of: dict[str, dict[int, dict[str, Any]]] = {}
        for kind in dict.fromkeys(row["kind"] for row in rows):
            mine = [row for row in rows if (row["set"], row["rank"], row["kind"]) == (name, rank, kind)]
            tried = [row for row in mine if row["choice"]]
            if tried:
                best = max(tried, key=lambda row: (row["accuracy"], -row["last"]))
                at = [row for row in mine if (row["rate"], row["eta"]) == (best["rate"], best["eta"])]
                of[kind] = {row["seed"]: row for row in at if not row["choice"]}
        plain = of["LoRA-XS"]
        of = {"frozen": {seed: {"accuracy": row["frozen"]} for seed, row in plain.items()}, **of}
        for kind, draws in of.items():
            mean = _estimate(mean_interval([row["accuracy"] for row in draws.values()]).as_dict())
            gains = [row["accuracy"] - plain[seed]["accuracy"] for seed, row in draws.items()]
            gain = "" if kind == "LoRA-XS" else _estimate(mean_interval(gains).as_dict(), "+.1f")
            losses = [row["last"] for row in draws.values() if "last" in row]
            last = f"{sum(losses) / len(losses):.2f}" if losses else ""
            learnt = next((f"{row['learnt']:,}" for row in draws.values() if "learnt" in row), "")
            body.append(
                (f"{SETS[name]}, {rank} x {rank}", words.get(kind, kind), learnt, str(len(draws)), mean, gain, last)
            )
    head = ("Task", "Method", "Numbers learnt", "Draws", "Accuracy, %", "Beside LoRA-XS, points", "Loss at the end")
    return table(head, body)


def _fast_forward() -> str:
    """A row a pair of runs, and their geometric means."""
    of = {(row["set"], row["rate"], row["seed"], row["kind"]): row for row in _read("fast_forward")["rows"]}
    every = {key[:3]: (row, of.get((*key[:3], "plain"))) for key, row in of.items() if key[3] == "fast"}
    pairs = {key: (fast, plain) for key, (fast, plain) in every.items() if plain}
    body = []
    for (name, rate, _), (fast, plain) in pairs.items():
        losses = (f"{fast['losses'][at][1]:.2f}" for at in (0, -1))
        ratios = (f"{fast[what] / plain[what]:.2f}" for what in ("steps", "passes", "seconds"))
        more = "" if plain["reached"] else "more than "
        steps = f"{fast['steps']} and {sum(fast['walks'])} repeated", f"{more}{plain['steps']}"
        body.append((TASKS.get(name) or SETS[name], f"{rate:g}", *losses, *steps, *ratios))
    means = (
        _estimate(geometric([fast[what] / plain[what] for fast, plain in pairs.values()]), ".2f")
        for what in ("steps", "passes", "seconds")
    )
    body.append(("geometric mean", "", "", "", "", "", *means))
    head = ("Texts", "Rate", "Loss before", "Goal", "Fast, steps", "Plain, steps", "Steps", "Forward passes", "Seconds")
    return table(head, body)


def _quick() -> str:
    """Answers that are the wanted word, by how many examples were learnt from."""
    words = {"plain": "SmolLM2", "instructions": "SmolLM2, inputs with instructions", "sentence encoder": "MiniLM"}
    words["blank"] = "the same network of random weights"
    rows = _read("language-quick")["rows"]
    body = [
        (SETS[row["set"]], words[row["start"]], *(f"{100 * score:.0f}" for score in row["scores"].values()))
        for row in rows
    ]
    return table(("Texts", "Start", *(f"{size} examples, %" for size in rows[0]["scores"])), body)


def _limit() -> str:
    """Both ways of judging by mix, means over seeds."""
    rows = _read("limit")["rows"]
    body = []
    for mix in dict.fromkeys(row["mix"] for row in rows):
        mine = [row for row in rows if row["mix"] == mix]
        means = (mean_interval([100 * row[way] for row in mine]).as_dict() for way in ("A", "B"))
        told = (_estimate(one) if len(mine) > 1 else f"{one['value']:.1f}" for one in means)
        body.append((mix, *told))
    return table(("Learnt from", "Gauntlet, % above chance", "Preferred to before, %"), body)


def geometric(ratios: list[float]) -> dict[str, float]:
    """Geometric mean with Student's t of the logarithms."""
    return {name: math.exp(value) for name, value in mean_interval([math.log(r) for r in ratios]).as_dict().items()}


def _estimate(e: dict[str, float], form: str = ".1f") -> str:
    return f"{e['value']:{form}} [{e['low']:{form}}, {e['high']:{form}}]"


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


_TABLES = {
    "accuracy": _accuracy,
    "compeft": _compeft,
    "held": _held,
    "trust": _trust,
    "precision": _precision,
    "reject": _reject,
    "pool": _pool,
    "speed": _speed,
    "episodes": _episodes,
    "setfit": _setfit,
    "tuning": partial(_tuning, "SetFit"),
    "fastfit": partial(_tuning, "FastFit"),
    "private": _private,
    "multipliers": _multipliers,
    "attacks": _attacks,
    "forecast": _forecast,
    "lora_sb": _lora_sb,
    "fast_forward": _fast_forward,
    "limit": _limit,
    "quick": _quick,
    "next": _next,
}
