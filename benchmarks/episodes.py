"""Episodes a second, Handful against easyfsl 1.5, on the same episodes in the same process.

    pip install --no-deps easyfsl==1.5.0 tqdm
    python benchmarks/episodes.py [--episodes 2000] [--threads 1] [--methods pt-map,tim-gd] [--out episodes.json]

Synthetic features (100 classes x 600 items, 640 numbers each, as a ResNet-12 gives), 5 ways, 15 queries a class. Both
get the same drawn indices, and settings that make them the same method with the same number of steps; gathering rows,
adapting and answering is timed, drawing is not. easyfsl takes one episode at a time and one thread, more make its small
operations slower; its own task sampler and data loader, slower still, are left out. Runs alternate; the median counts.
Slow methods of easyfsl see the first episodes only, and accuracies are compared on those.

Features are centred and made unit beforehand (CL2N) for both, except for prototypes; for PT-MAP negative ones are cut
off and the rest sum to 1, so that rows are unit after the square root: easyfsl does not make them so, and on raw or L2
features its exponentials underflow and it answers NaN.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import statistics
import sys
import time
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handful.adapt import head
from handful.evaluate.episodic import run
from handful.evaluate.indices import Episodes
from handful.evaluate.sampling import draw

CLASSES, ITEMS, WIDTH, WAYS, QUERIES, ROUNDS = 100, 600, 640, 5, 15, 5
MANY = 10_000


@dataclass(frozen=True)
class Pair:
    """One method on both sides.

    Args:
        key, params: the head.
        module, name: of easyfsl.
        features: which features both get.
        most: episodes that easyfsl sees at most.
        chunk: episodes that the head takes at a time; ``None`` leaves that to the library.
    """

    key: str
    params: Mapping[str, Any]
    module: str
    name: str
    features: str = "cl2n"
    most: int = 2000
    chunk: int | None = None


PAIRS = (
    Pair("prototypes", {}, "prototypical_networks", "PrototypicalNetworks", "raw"),
    Pair("simpleshot", {"norm": "UN", "metric": "cosine"}, "simple_shot", "SimpleShot"),
    Pair("bd-cspn", {"norm": "UN", "temperature": 1.0, "shifted": False}, "bd_cspn", "BDCSPN", chunk=32),
    Pair(
        "laplacianshot",
        {"norm": "UN", "lam": 0.7, "rectify": "share", "temperature": 1.0, "shifted": False},
        "laplacian_shot",
        "LaplacianShot",
        most=500,
        chunk=32,
    ),
    Pair(
        "tim-gd",
        {"norm": "UN", "metric": "cosine", "temperature": 10.0, "loss_weights": (1.0, 1.0, 0.1), "n_steps": 50},
        "tim",
        "TIM",
        most=40,
        chunk=32,
    ),
    Pair(
        "transductive-finetuning",
        {"norm": "UN"},
        "transductive_finetuning",
        "TransductiveFinetuning",
        most=100,
        chunk=32,
    ),
    Pair("pt-map", {"center": False, "n_steps": 10}, "pt_map", "PTMAP", "shares", most=200, chunk=64),
)


def easyfsl_method(module: str, name: str) -> Any:
    """A method of easyfsl without its package's ``__init__``, which imports torchvision for backbones we do not use."""
    if "easyfsl.methods" not in sys.modules:
        spec = importlib.util.find_spec("easyfsl")
        if spec is None or spec.origin is None:
            sys.exit("easyfsl is not installed: pip install --no-deps easyfsl==1.5.0 tqdm")
        package = types.ModuleType("easyfsl.methods")
        package.__path__ = [str(Path(spec.origin).parent / "methods")]
        importlib.import_module("easyfsl")
        sys.modules["easyfsl.methods"] = package
    return getattr(importlib.import_module(f"easyfsl.methods.{module}"), name)


def features() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Noise around class means ``[n, 640]`` in three forms, and labels."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(CLASSES), ITEMS)
    means = 0.25 * rng.standard_normal((CLASSES, WIDTH), dtype=np.float32)
    x = means[y] + rng.standard_normal((len(y), WIDTH), dtype=np.float32)
    positive, moved = np.maximum(x, 0), x - x.mean(axis=0)
    return {
        "raw": x,
        "cl2n": moved / np.linalg.norm(moved, axis=1, keepdims=True),
        "shares": positive / positive.sum(axis=1, keepdims=True),
    }, y


def theirs(method: Any, x: torch.Tensor, drawn: Episodes) -> tuple[np.ndarray, float]:
    """Accuracy of each episode, and seconds."""
    support, query = (torch.as_tensor(a).flatten(1).long() for a in (drawn.support, drawn.query))
    labels = torch.arange(WAYS).repeat_interleave(drawn.shots)
    answers = torch.arange(WAYS).repeat_interleave(drawn.queries)
    accuracy, start = np.empty(len(drawn)), time.perf_counter()
    with torch.no_grad():
        for e in range(len(drawn)):
            method.process_support_set(x[support[e]], labels)
            accuracy[e] = (method(x[query[e]]).argmax(1) == answers).double().mean().item()
    return accuracy, time.perf_counter() - start


def compare(pair: Pair, x: np.ndarray, y: np.ndarray, drawn: Episodes, threads: int) -> dict[str, Any]:
    """Episodes a second of both, their ratio, and how far the accuracies are apart."""
    ours, method = head(pair.key, **pair.params), easyfsl_method(pair.module, pair.name)()
    tensor, few = torch.as_tensor(x), drawn[: pair.most]
    rates: dict[str, list[float]] = {"handful": [], "easyfsl": []}
    theirs(method, tensor, few[:2])
    for _ in range(ROUNDS):
        torch.set_num_threads(threads)
        found = run(ours, x, y, drawn, chunk=pair.chunk)
        torch.set_num_threads(1)
        accuracy, seconds = theirs(method, tensor, few)
        rates["handful"].append(len(drawn) / found.seconds)
        rates["easyfsl"].append(len(few) / seconds)
    handful, easyfsl = (statistics.median(rates[name]) for name in ("handful", "easyfsl"))
    same = found.accuracy[: len(few)]
    return {
        "handful": handful,
        "easyfsl": easyfsl,
        "ratio": handful / easyfsl,
        "accuracy": found.mean.as_dict(),
        "accuracy_same_episodes": float(same.mean()),
        "accuracy_easyfsl": float(accuracy.mean()),
        "episodes_compared": len(few),
        "episodes_that_differ": int((np.abs(same - accuracy) > 1e-9).sum()),
    }


def many(x: np.ndarray, y: np.ndarray, threads: int) -> dict[str, Any]:
    """Ten thousand episodes of PT-MAP with the defaults of its authors."""
    torch.set_num_threads(threads)
    drawn = draw(y, ways=WAYS, shots=1, queries=QUERIES, episodes=MANY, seed=0)
    return run(head("pt-map"), x, y, drawn, chunk=64).as_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shots", type=int, nargs="*", default=[1, 5])
    parser.add_argument("--methods", type=lambda text: text.split(","), default=[pair.key for pair in PAIRS])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    x, y = features()
    results = []
    for shots in options.shots:
        drawn = draw(y, ways=WAYS, shots=shots, queries=QUERIES, episodes=options.episodes, seed=0)
        for pair in (pair for pair in PAIRS if pair.key in options.methods):
            found = {"method": pair.key, "shots": shots, **compare(pair, x[pair.features], y, drawn, options.threads)}
            results.append(found)
            print(
                f"{pair.key}, shots {shots}: {found['handful']:,.0f} against {found['easyfsl']:,.0f} episodes/s, "
                f"{found['ratio']:.1f}x; accuracy {found['accuracy_same_episodes']:.4f} and "
                f"{found['accuracy_easyfsl']:.4f}; "
                f"episodes that differ: {found['episodes_that_differ']} of {found['episodes_compared']}",
                flush=True,
            )
    more = {}
    if "pt-map" in options.methods:
        more = {"pt_map": many(x["shares"], y, options.threads)}
        print(f"{MANY:,} episodes of pt-map: {more['pt_map']['seconds']:.1f} s, {more['pt_map']['accuracy']}")
    if options.out is not None:
        setting = {"episodes": options.episodes, "threads": options.threads, "torch": torch.__version__}
        text = json.dumps({**setting, "results": results, **more}, indent=2)
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
