"""Episodes a second, Handful against easyfsl 1.5, on the same episodes in the same process.

    pip install --no-deps easyfsl==1.5.0 tqdm
    python benchmarks/episodes.py [--episodes 2000] [--threads 1] [--out episodes.json]

Synthetic features (100 classes x 600 items, 640 numbers each, as a ResNet-12 gives), 5 ways, 15 queries a class. Both
get the same drawn indices; gathering rows, adapting and answering is timed, drawing is not. easyfsl takes one episode
at a time; its own task sampler and data loader, slower still, are left out. Runs alternate; the median of five counts.
SimpleShot is compared on features that are centred and made unit beforehand (CL2N), for both.
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
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handful.adapt.base import Head
from handful.adapt.prototypes import Prototypes
from handful.evaluate.episodic import run
from handful.evaluate.indices import Episodes
from handful.evaluate.sampling import draw

CLASSES, ITEMS, WIDTH, WAYS, QUERIES, ROUNDS = 100, 600, 640, 5, 15, 5


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


def features() -> tuple[np.ndarray, np.ndarray]:
    """Unit noise around class means ``[n, 640]``, and labels."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(CLASSES), ITEMS)
    means = 0.12 * rng.standard_normal((CLASSES, WIDTH), dtype=np.float32)
    return means[y] + rng.standard_normal((len(y), WIDTH), dtype=np.float32), y


def cl2n(x: np.ndarray) -> np.ndarray:
    """Centred by the mean and made unit."""
    x = x - x.mean(axis=0)
    unit: np.ndarray = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


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


def compare(ours: Head, method: Any, x: np.ndarray, y: np.ndarray, drawn: Episodes) -> dict[str, Any]:
    """Episodes a second of both, their ratio, and how far the accuracies are apart."""
    tensor = torch.as_tensor(x)
    rates: dict[str, list[float]] = {"handful": [], "easyfsl": []}
    for _ in range(ROUNDS):
        found = run(ours, x, y, drawn)
        accuracy, seconds = theirs(method, tensor, drawn)
        rates["handful"].append(len(drawn) / found.seconds)
        rates["easyfsl"].append(len(drawn) / seconds)
    handful, easyfsl = (statistics.median(rates[name]) for name in ("handful", "easyfsl"))
    return {
        "handful": handful,
        "easyfsl": easyfsl,
        "ratio": handful / easyfsl,
        "accuracy": found.mean.as_dict(),
        "accuracy_easyfsl": float(accuracy.mean()),
        "episodes_that_differ": int((np.abs(found.accuracy - accuracy) > 1e-9).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x, y = features()
    pairs = {
        "prototypes": (Prototypes(), easyfsl_method("prototypical_networks", "PrototypicalNetworks")(), x),
        "simpleshot": (Prototypes(metric="cosine"), easyfsl_method("simple_shot", "SimpleShot")(), cl2n(x)),
    }
    results = []
    for shots in (1, 5):
        drawn = draw(y, ways=WAYS, shots=shots, queries=QUERIES, episodes=options.episodes, seed=0)
        for name, (ours, method, rows) in pairs.items():
            found = {"method": name, "shots": shots, **compare(ours, method, rows, y, drawn)}
            results.append(found)
            print(
                f"{name}, shots {shots}: {found['handful']:,.0f} against {found['easyfsl']:,.0f} episodes/s, "
                f"{found['ratio']:.1f}x; accuracy {found['accuracy']['value']:.4f} and "
                f"{found['accuracy_easyfsl']:.4f}; "
                f"episodes that differ: {found['episodes_that_differ']} of {options.episodes}"
            )
    if options.out is not None:
        setting = {"episodes": options.episodes, "threads": options.threads, "torch": torch.__version__}
        options.out.write_text(json.dumps({**setting, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
