"""Pictures of what a model's layers make of queries under several templates: t-SNE, as SVG."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.manifold import TSNE

from handful.files import whole_file

SIZE, MARGIN = 480, 16
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#222222")


def flattened(states: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE of ``[n, d]``: ``[n, 2]``; perplexity 30, or a third of n - 1 where that is less; one point where all
    states are equal."""
    n = len(states)
    if not np.ptp(states, axis=0).any():
        return np.zeros((n, 2))
    made = TSNE(2, perplexity=min(30.0, (n - 1) / 3), init="pca" if min(states.shape) > 1 else "random",
                random_state=seed)  # fmt: skip
    return np.asarray(made.fit_transform(states.astype(np.float64)))


def write_pictures(
    states: Mapping[tuple[str, str], torch.Tensor], meaning: Sequence[str], folder: Path, seed: int = 0
) -> list[Path]:
    """The first, the middle and the last layer of each: colours say what is meant, letters the template."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for (name, when), found in states.items():
        many, layers, n, _ = found.shape
        for layer in sorted({min(1, layers - 1), layers // 2, layers - 1}):
            places = flattened(found[:, layer].reshape(many * n, -1).numpy(), seed)
            path = folder / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}-{when}-layer{layer}.svg"
            title = f"{name}, {when} tuning, layer {layer}"
            with whole_file(path) as file:
                file.write(
                    drawn(places, list(meaning) * many, [t for t in range(many) for _ in range(n)], title).encode()
                )
            out.append(path)
    return out


def drawn(places: np.ndarray, groups: Sequence[str], templates: Sequence[int], title: str) -> str:
    """An SVG of points ``[n, 2]``: a colour a group, the letter of its template at each."""
    low, high = places.min(0), places.max(0)
    at = MARGIN + (places - low) / np.maximum(high - low, 1e-12) * (SIZE - 2 * MARGIN)
    names = list(dict.fromkeys(groups))
    colour = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    marks = "".join(
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour[group]}">{chr(65 + t % 26)}</text>'
        for (x, y), group, t in zip(at.tolist(), groups, templates, strict=True)
    )
    legend = "".join(
        f'<text x="{SIZE + 8}" y="{24 + 16 * i}" fill="{colour[name]}">{html.escape(name)}</text>'
        for i, name in enumerate(names)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE + 200} {SIZE}" font-family="sans-serif" '
        f'font-size="11"><title>{html.escape(title)}</title>{marks}{legend}</svg>\n'
    )
