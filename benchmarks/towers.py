"""What a few photographs of classes that two towers have never seen are worth to them.

    python benchmarks/tiny_clip.py FOLDER
    python benchmarks/towers.py FOLDER [--data FOLDER] [--shots 1 4] [--seeds 5]

The towers are TinyCLIP's, which learnt from every second class of WHU-RS19; the task is the other classes. Every draw
takes as many photographs a class as the largest number of shots, trains on the first of them with the defaults of each
method, and asks for all that were not drawn. A row of ``results/towers.json`` has the accuracy in per cent of each
method, as a mean over draws with Student's t interval, and the gain over zero-shot on the same photographs.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import cast

import accuracy as sets
import numpy as np
import tiny_clip
import torch
from torch import Tensor
from torch.nn import functional

from handful.core.intervals import mean_interval
from handful.encode import encoder
from handful.encode.hf_vision import HubImages
from handful.encode.two_towers import TwoTowers
from handful.files import whole_file
from handful.tune import Data, Recipe, tune
from handful.tune.clip_lora import CLIPLoRA
from handful.tune.prolip import ProLIP

TEMPLATE = tiny_clip.TEMPLATES[0]


def main() -> int:
    """Run all draws and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=sets.folder, default=str(sets.SHARED))
    parser.add_argument("--shots", type=int, nargs="*", default=(1, 4))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=sets.HERE / "results" / "towers.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    towers = cast(HubImages, encoder(f"hf:{options.folder}")).two_towers()
    pixels, labels, names = tiny_clip.photographs(options.data)
    other = labels % 2 == 1
    pixels, labels, classes = pixels[other], labels[other] // 2, tuple(names[1::2])
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    for shots in options.shots:
        draws = [one(towers, pixels, labels, classes, shots, max(options.shots), seed) for seed in range(options.seeds)]
        rows = [row for row in rows if row["shots"] != shots]
        rows.append({"set": "whu-rs19", "classes": len(classes), "shots": shots, "draws": len(draws), **summary(draws)})
        rows.sort(key=lambda row: row["shots"])
        with whole_file(options.out) as file:
            file.write(json.dumps({"towers": "tiny-clip", "rows": rows}, indent=1).encode())
        print(json.dumps(rows[-1]), flush=True)
    return 0


def one(
    towers: TwoTowers, pixels: Tensor, labels: Tensor, classes: tuple[str, ...], shots: int, most: int, seed: int
) -> dict[str, float]:
    """One draw: accuracies in per cent, seconds beside them."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels.numpy() == c))[:most] for c in range(len(classes))]
    rest = np.setdiff1d(np.arange(len(labels)), np.concatenate(drawn))
    rows = torch.as_tensor(np.concatenate([some[:shots] for some in drawn]))
    asked = functional.interpolate(pixels[rest], (tiny_clip.SIDE,) * 2, mode="bicubic", antialias=True)
    data = Data(pixels[rows], labels[rows], classes)
    with torch.no_grad():
        texts = towers.text(towers.tokens([TEMPLATE.replace("{}", name) for name in classes]))
        found = {"zero-shot": accuracy(torch.cat([towers(some) @ texts.mT for some in asked.split(64)]), labels[rest])}
    recipes: dict[str, Recipe] = {
        "clip-lora": CLIPLoRA(template=TEMPLATE, side=tiny_clip.SIDE).recipe(),
        "prolip": ProLIP(shots, "image", lr=1e-2, templates=(TEMPLATE,), side=tiny_clip.SIDE).recipe(),
        "prolip-text": ProLIP(shots, "text", lr=1e-2, templates=(TEMPLATE,), side=tiny_clip.SIDE).recipe(),
    }
    for key, recipe in recipes.items():
        start = time.monotonic()
        found[key] = accuracy(tune(towers, data, recipe, seed=seed).logits(asked), labels[rest])
        found[f"{key} seconds"] = time.monotonic() - start
    print(shots, seed, {key: round(value, 1) for key, value in found.items()}, flush=True)
    return found


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """In per cent, each class as heavy as another."""
    right = (logits.argmax(1) == labels).double()
    return float(100 * torch.stack([right[labels == c].mean() for c in labels.unique()]).mean())


def summary(draws: list[dict[str, float]]) -> dict[str, object]:
    """By method its accuracy, its gain over zero-shot and its seconds."""
    out: dict[str, object] = {}
    for key in draws[0]:
        if key.endswith(" seconds"):
            continue
        mean = mean_interval([draw[key] for draw in draws])
        gain = mean_interval([draw[key] - draw["zero-shot"] for draw in draws])
        out[key] = {
            "accuracy": [round(x, 1) for x in (mean.value, mean.low, mean.high)],
            "gain": [round(x, 1) for x in (gain.value, gain.low, gain.high)],
            "seconds": round(float(np.mean([draw.get(f"{key} seconds", 0.0) for draw in draws])), 1),
        }
    return out


if __name__ == "__main__":
    raise SystemExit(main())
