"""Encoding speed against peers, in one process, in turns, with the same weights.

    python benchmarks/encode.py [--data FOLDER] [--rounds N] [--threads N] [--accuracy] [--out results/encode.json]

Texts: sentence-transformers (float32) against Handful's MiniLM. Images: the plain EfficientNet-Lite0 in eager mode, fed
by Pillow in a loop, against Handful's. Each round runs every contestant once, in turns; a ratio is formed within a
round, and the table gives its median, least and largest. Processor seconds stand beside those of the clock: on a busy
machine they are the ones to trust, most of all with ``--threads 1``. ``--accuracy`` adds what the faster arithmetic
does to a few-shot classifier: logistic regression, 20 draws, paired.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import platform
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"  # everything is on this machine

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared" / "data"
DRAWS = 20

Work = Callable[[], np.ndarray]


Times = dict[str, dict[str, list[float]]]
"""By clock (``wall`` and ``processor``) and contestant, seconds a round."""


def rounds_of(contestants: Mapping[str, Work], rounds: int) -> tuple[Times, dict[str, np.ndarray]]:
    """How long each contestant took in each round, and what it computed. One round before them warms up."""
    times: Times = {clock: {name: [] for name in contestants} for clock in ("wall", "processor")}
    found: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):
        for name, work in contestants.items():
            start, start_processor = time.perf_counter(), time.process_time()
            found[name] = work()
            if turn:
                times["wall"][name].append(time.perf_counter() - start)
                times["processor"][name].append(time.process_time() - start_processor)
    return times, found


def compare(title: str, n: int, contestants: Mapping[str, Work], rounds: int) -> dict[str, Any]:
    """The first contestant is what the others are measured against, the second is exact. Prints a table."""
    times, found = rounds_of(contestants, rounds)
    peer, exact, *_ = contestants
    print(f"\n{title}, {n} items, {rounds} rounds in turns")
    print(f"  {'':26s} {'seconds':>8s} {'times as fast':>22s} {'by processor seconds':>24s} {'cosine (least)':>20s}")
    rows = []
    for name in contestants:
        cosines = cosine(found[exact], found[name])
        ratios = {clock: spread(np.divide(times[clock][peer], times[clock][name])) for clock in times}
        rows.append(
            {
                "name": name,
                "seconds": {clock: times[clock][name] for clock in times},
                "ratio": ratios,
                "cosine": {"mean": float(cosines.mean()), "least": float(cosines.min())},
                "largest_difference": float(np.abs(found[exact] - found[name]).max()),
            }
        )
        shown = ["{median:.2f} ({least:.2f} to {most:.2f})".format(**ratio) for ratio in ratios.values()]
        seconds = np.median(times["wall"][name])
        close = f"{cosines.mean():.5f} ({cosines.min():.5f})"
        print(f"  {name:26s} {seconds:8.3f} {shown[0]:>22s} {shown[1]:>24s} {close:>20s}", flush=True)
    return {"title": title, "n": n, "rounds": rounds, "rows": rows}


def spread(ratios: np.ndarray) -> dict[str, float]:
    return {"median": float(np.median(ratios)), "least": float(ratios.min()), "most": float(ratios.max())}


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def texts(rounds: int, title: str, items: Sequence[str]) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    from handful.encode import encoder
    from handful.encode.weights import MINILM

    peer = SentenceTransformer(str(MINILM.path().parent), device="cpu")
    exact, auto = encoder("minilm", precision="float32"), encoder("minilm")
    return compare(
        title,
        len(items),
        {
            "sentence-transformers": lambda: peer.encode(items, normalize_embeddings=True, show_progress_bar=False),
            "handful float32": lambda: exact.encode(items, cache=False),
            f"handful auto ({auto.fingerprint.rpartition(':')[2]})": lambda: auto.encode(items, cache=False),
        },
        rounds,
    )


def images(rounds: int, items: Sequence[bytes]) -> dict[str, Any]:
    import torch
    from PIL import Image

    from handful.encode import encoder
    from handful.encode.efficientnet import BATCH, MEAN, SCALE, SHARE, SIZE
    from handful.encode.lite0 import EfficientNetLite0
    from handful.encode.weights import EFFICIENTNET_LITE0

    model = EfficientNetLite0()
    model.load_state_dict(torch.load(EFFICIENTNET_LITE0.path(), weights_only=True))
    model.eval()
    batch = BATCH * torch.get_num_threads()

    def pixels(data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        side = min(image.size) * SHARE
        left, top = (image.width - side) / 2, (image.height - side) / 2
        return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, (left, top, left + side, top + side)))

    @torch.inference_mode()
    def eager() -> np.ndarray:
        parts = []
        for start in range(0, len(items), batch):
            x = torch.from_numpy(np.stack([pixels(item) for item in items[start : start + batch]]))
            parts.append(model.maps((x.permute(0, 3, 1, 2).contiguous() - MEAN) / SCALE).mean((2, 3)))
        return torch.cat(parts).numpy()

    name = "efficientnet-lite0"
    exact, auto = encoder(name, precision="float32"), encoder(name)
    return compare(
        f"EfficientNet-Lite0 on WHU-RS19, batches of {batch}",
        len(items),
        {
            "plain eager float32": eager,
            "handful float32": lambda: exact.encode(items, cache=False),
            f"handful auto ({auto.fingerprint.rpartition(':')[2]})": lambda: auto.encode(items, cache=False),
        },
        rounds,
    )


def accuracy(
    name: str, learn: tuple[list[Any], np.ndarray], test: tuple[list[Any], np.ndarray] | None, shots: int
) -> Any:
    """Accuracy of logistic regression on features of either arithmetic, and their paired difference. Prints a line."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    from handful.encode import encoder

    tower = "minilm" if isinstance(learn[0][0], str) else "efficientnet-lite0"
    reached = []
    for precision in ("float32", "auto"):
        encode = encoder(tower, precision=precision).encode  # type: ignore[arg-type]
        x = normalize(encode(learn[0], cache=False))
        held = None if test is None else normalize(encode(test[0], cache=False))
        reached.append(
            [_accuracy(LogisticRegression(C=10, max_iter=300), x, learn[1], held, test, shots, s) for s in range(DRAWS)]
        )
    exact, auto = 100 * np.array(reached)
    gain = auto - exact
    half = 2.093 * gain.std(ddof=1) / DRAWS**0.5  # Student's t, 19 degrees of freedom
    reached_by = f"float32 {exact.mean():.2f} %, auto {auto.mean():.2f} %"
    print(f"  {name}, {shots} shots: {reached_by}, difference {gain.mean():+.2f} ± {half:.2f}", flush=True)
    return {"name": name, "shots": shots, "float32": exact.mean(), "auto": auto.mean(),
            "difference": {"value": gain.mean(), "low": gain.mean() - half, "high": gain.mean() + half}}  # fmt: skip


def _accuracy(
    model: Any, x: np.ndarray, y: np.ndarray, held: np.ndarray | None, test: Any, shots: int, seed: int
) -> float:
    order = np.random.default_rng(seed).permutation(len(y))
    support = np.concatenate([order[y[order] == c][:shots] for c in np.unique(y)])
    rest = np.setdiff1d(order, support)
    model.fit(x[support], y[support])
    return float(model.score(x[rest], y[rest]) if held is None else model.score(held, test[1]))


def banking(folder: Path, part: str) -> tuple[list[str], np.ndarray]:
    with (folder / "banking77" / f"{part}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], np.array([row["category"] for row in rows])


def news(folder: Path) -> list[str]:
    with (folder / "few-shot-text" / "agnews" / "test.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row.get("text") or row["sentence"] for row in rows]


def scenes(folder: Path) -> tuple[list[bytes], np.ndarray]:
    with zipfile.ZipFile(folder / "whu_rs19_224.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        return [archive.read(name) for name in names], np.array([name.split("/")[-2] for name in names])


def machine() -> dict[str, Any]:
    import torch

    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        cpu = next((line.split(":")[1].strip() for line in info.open(encoding="utf-8") if "model name" in line), cpu)
    packages = ("torch", "sentence-transformers", "transformers", "tokenizers", "pillow")
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="of PyTorch; by default as many as it takes by itself")
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "encode.json")
    options = parser.parse_args()
    try:
        import sentence_transformers  # noqa: F401
    except ImportError:
        print(
            "sentence-transformers is needed to compare with; run: pip install sentence-transformers==6.2.0",
            file=sys.stderr,
        )
        return 2
    if not options.data.is_dir():
        print(f"{options.data} is not there; give the folder of the data sets with --data", file=sys.stderr)
        return 2
    import torch

    from handful.files import whole_file

    if options.threads:
        torch.set_num_threads(options.threads)
    queries, intents = banking(options.data, "train")
    pictures, classes = scenes(options.data)
    draw = np.random.default_rng(0)
    few = [queries[i] for i in draw.permutation(len(queries))[:616]]
    long = [news(options.data)[i] for i in draw.permutation(1000)[:300]]
    some = [pictures[i] for i in draw.permutation(len(pictures))[:128]]
    result: dict[str, Any] = {"machine": machine()}
    result["speed"] = [
        texts(options.rounds, "MiniLM on Banking77", few),
        texts(options.rounds, "MiniLM on AG News", long),
        images(options.rounds, some),
    ]
    if options.accuracy:
        print("\nWhat the faster arithmetic does to logistic regression (20 draws, paired, 95 %)")
        result["accuracy"] = [
            accuracy("Banking77", (queries, intents), banking(options.data, "test"), 8),
            accuracy("WHU-RS19", (pictures, classes), None, 5),
        ]
    with whole_file(options.out) as file:
        file.write((json.dumps(result, indent=1) + "\n").encode())
    print(f"\nwritten to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
