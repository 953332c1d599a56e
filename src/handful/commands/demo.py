"""`handful demo`: the main job on real input, from nothing: support tickets and pictures of handwritten digits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from handful.commands.fit import fit
from handful.commands.predict import predict
from handful.errors import BadInput
from handful.files import whole_file, whole_folder
from handful.protocols import Progress
from handful.ship.model import Model

if TYPE_CHECKING:
    import polars as pl

MARK = ".handful-demo"  # a folder with this file in it is the demo's own
EXAMPLES = ("tickets.csv", "intents.csv", "new_tickets.csv")
SHOTS = 5  # labelled digits a class
PIXELS = 64  # the digits come as 8 x 8; enlarged, so that a person who opens one sees it


@dataclass(frozen=True)
class Demo:
    """What the demo made: two models, and the answers of the first to new tickets."""

    folder: Path
    tickets: Model
    digits: Model
    labelled: pl.DataFrame


def demo(out: str | Path = "handful-demo", *, cache: bool = True, progress: Progress | None = None) -> Demo:
    """Fit one model to support tickets and one to pictures of digits, and label new tickets with the first.

    The tickets are invented and come with Handful; the digits are the 1,797 scanned ones that come with scikit-learn.
    Of those, five a class are learnt from and all others tested on. Nothing is downloaded.

    Args:
        out: the folder for examples, models, reports and answers. A folder that an earlier run made is used again:
            examples that lie there are taken as they are, models, reports and answers are made anew.
        cache: use the feature cache.

    Raises:
        BadInput: ``out`` is something else than an empty folder or an earlier run's.
    """
    folder = Path(out)
    _claim(folder)
    _write_missing(folder)
    tickets = fit(
        folder / "tickets.csv",
        class_names=folder / "intents.csv",
        out=folder / "tickets.handful",
        report=folder / "tickets.html",
        cache=cache,
        progress=progress,
    )
    labelled = predict(
        tickets,
        folder / "new_tickets.csv",
        out=folder / "labelled_tickets.csv",
        force=True,
        cache=cache,
        progress=progress,
    )
    digits = fit(
        folder / "digits" / "learn",
        test=folder / "digits" / "test",
        out=folder / "digits.handful",
        report=folder / "digits.html",
        cache=cache,
        progress=progress,
    )
    return Demo(folder, tickets, digits, labelled)


def _claim(folder: Path) -> None:
    """Make the folder and mark it as the demo's. Raises `BadInput` when it holds something foreign."""
    if folder.exists() and not (folder / MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is there and was not made by the demo; nothing in it is touched: give another --out")
    with whole_file(folder / MARK) as file:
        file.write(b"Made by `handful demo`, which may write its models, reports and answers here again.\n")


def _write_missing(folder: Path) -> None:
    """Write the examples that are not there yet."""
    packaged = resources.files("handful") / "examples"
    for name in EXAMPLES:
        if not (folder / name).exists():
            with whole_file(folder / name) as file:
                file.write(packaged.joinpath(name).read_bytes())
    if not (folder / "digits").exists():
        _write_digits(folder / "digits")


def _write_digits(folder: Path) -> None:
    """Write all pictures, under another name until they are all there."""
    with whole_folder(folder) as part:
        for name, pixels in _digits():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_png(pixels))


def _digits() -> Iterator[tuple[str, np.ndarray]]:
    """Names such as ``learn/3/0017.png`` and pictures ``[8, 8]`` of levels 0 to 16; `SHOTS` a class to learn from."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    by_class = order[np.argsort(bunch.target[order], kind="stable")]
    start = np.searchsorted(bunch.target[by_class], bunch.target[by_class])
    learn = set(by_class[np.arange(len(by_class)) - start < SHOTS].tolist())
    for i, (pixels, digit) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        yield f"{'learn' if i in learn else 'test'}/{digit}/{i:04d}.png", pixels


def _png(pixels: np.ndarray) -> bytes:
    """An enlarged PNG, ink dark on white paper."""
    from PIL import Image

    grey = (255 * (1 - pixels / 16)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()
