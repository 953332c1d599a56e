"""How well a clip or an image was edited: what changed outside the edit, whether the motion stayed, did it succeed.

Paper 128: Minghan Li et al., "FiVE: A Fine-grained Video Editing Benchmark for Evaluating Emerging Diffusion and
Rectified Flow Models", 2025; the measures that need no generator.

    background   PSNR, MSE, SSIM of both clips times 1 - mask, frame by frame (values 0 to 1), mean over frames
    structure    mean squared difference of the self-similarities  S_ij = cos(k_i, k_j)  of patch keys k of both frames
    motion       s(n, m) = mean_t <d_n,t, d_m,t> of unit displacements d of two tracks; for each track of the edited
                 clip the best track of the original. "symmetric": the mean of both directions (Yatim et al. 2023);
                 "five", as published: one direction, of s less the identity matrix
    success      YN: a question on the source is answered no, and one on the target yes; MC: the choice is b;
                 U = YN or MC, I = YN and MC, FiVE-Acc = mean(YN, MC, U, I) = (YN + MC) / 2, for U + I = YN + MC
    aggregate    mean over clips of each kind of edit, then over kinds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from handful.adapt.parameters import count
from handful.core.intervals import Estimate, wilson
from handful.core.ssim import ssim
from handful.errors import BadInput

STRIDE = 8
"""Every how many frames are compared."""
SIGMA, RADIUS = 1.5, 5
"""Of the Gaussian window of SSIM."""
SCALES = {"structure": 1e3, "lpips": 1e3, "mse": 1e4, "ssim": 1e2, "motion": 1e2}
"""What published tables multiply a measure by."""
Measure = Literal["psnr", "mse", "ssim"]


@dataclass(frozen=True)
class FrameMean:
    """Mean over frames; NaN where none counts. ``left_out`` had an empty or a full mask."""

    value: float
    frames: int
    left_out: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; ``None`` for what is no number."""
        return {**self.__dict__, "value": self.value if np.isfinite(self.value) else None}


def background(
    measure: Measure, edited: np.ndarray, original: np.ndarray, mask: np.ndarray | None = None, stride: int = STRIDE
) -> FrameMean:
    """What is left of the frames outside the edit.

    Args:
        measure: ``"psnr"`` (infinite for equal frames), ``"mse"`` or ``"ssim"``.
        edited, original: ``[F, H, W, channels]``, bytes or numbers between 0 and 1.
        mask: ``[F, H, W]``, 1 where the edit is allowed; ``None`` compares whole frames.
        stride: every how many frames are compared.

    Raises:
        BadInput: clips of other shapes than each other (frames are never dropped silently), frames too small, or
            values out of range, a stride that is no whole number from 1.
    """
    a, b = _clip(edited), _clip(original)
    count("stride", stride, 1)
    if a.shape != b.shape:
        raise BadInput(f"clips of {a.shape} and {b.shape} (frames, height, width, channels) cannot be compared")
    if measure not in _MEASURES:
        raise BadInput(f"measure is one of {', '.join(_MEASURES)}, not {measure!r}")
    if measure == "ssim" and min(a.shape[1:3]) <= 2 * RADIUS:
        raise BadInput(f"frames of {a.shape[1]} x {a.shape[2]} are too small for SSIM, which takes {2 * RADIUS + 1}")
    keep = np.ones(len(a), bool)
    if mask is not None:
        m = np.asarray(mask)
        if m.shape != a.shape[:3] or not np.isin(m, (0, 1)).all():
            found = f"{m.shape} with {np.unique(m)[:4].tolist()}" if m.shape == a.shape[:3] else f"{m.shape}"
            raise BadInput(f"a mask of zeros and ones of shape {a.shape[:3]} is needed, not {found}")
        share = m.mean(axis=(1, 2))
        keep = (share > 0) & (share < 1)
        a, b = a * (1 - m)[..., None], b * (1 - m)[..., None]
    chosen = np.arange(len(a)) % stride == 0
    values = [_MEASURES[measure](a[i], b[i]) for i in np.flatnonzero(chosen & keep)]
    return FrameMean(float(np.mean(values)) if values else float("nan"), len(values), int((chosen & ~keep).sum()))


def _mse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a - b).mean())


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = _mse(a, b)
    return -10 * float(np.log10(error)) if error > 0 else float("inf")


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Gaussian window of 11 pixels; frames are mirrored at their edges."""

    def blur(x: np.ndarray) -> np.ndarray:
        out: np.ndarray = ndimage.gaussian_filter(x, SIGMA, radius=RADIUS, axes=(0, 1), mode="mirror")
        return out

    return float(ssim(a, b, blur).mean())


_MEASURES = {"psnr": _psnr, "mse": _mse, "ssim": _ssim}


def structure_distance(edited: np.ndarray, original: np.ndarray) -> float:
    """Of patch keys ``[F, P, D]`` or ``[P, D]``: 0 where the parts of each frame are alike as they were.

    Raises:
        BadInput: shapes that differ, numbers that are not finite, or a key of length 0.
    """
    a, b = np.asarray(edited, float), np.asarray(original, float)
    if a.shape != b.shape or a.ndim not in (2, 3) or not a.size:
        raise BadInput(f"keys of {a.shape} and {b.shape} cannot be compared: [frames, patches, dimensions] of both")
    _refuse_odd(a, b)
    sims = []
    for keys in (a, b):
        length = np.linalg.norm(keys, axis=-1, keepdims=True)
        if not length.all():
            raise BadInput("a key of length 0 has no direction")
        unit = keys / length
        sims.append(unit @ np.swapaxes(unit, -1, -2))
    return float(np.square(sims[0] - sims[1]).mean())


def motion_fidelity(
    edited: np.ndarray, original: np.ndarray, mode: Literal["symmetric", "five"] = "symmetric"
) -> float:
    """How much of the motion is still there, -1 to 1.

    Two tracks that both rest in a step agree in it (1); where one rests and the other moves the step counts 0.

    Args:
        edited, original: tracks ``[n, T, 2]`` and ``[m, T, 2]``.
        mode: see the module; ``"five"`` takes as many tracks of both.

    Raises:
        BadInput: shapes that do not fit, numbers that are not finite, fewer than two frames, or an unknown mode.
    """
    a, b = np.asarray(edited, float), np.asarray(original, float)
    if a.ndim != 3 or b.ndim != 3 or a.shape[1:] != b.shape[1:] or a.shape[1] < 2 or not len(a) or not len(b):
        raise BadInput(f"tracks of {a.shape} and {b.shape} do not fit: [tracks, frames, 2], two frames at least")
    _refuse_odd(a, b)
    if mode not in ("symmetric", "five"):
        raise BadInput(f"mode is 'symmetric' or 'five', not {mode!r}")
    if mode == "five" and len(a) != len(b):
        raise BadInput(f"mode 'five' takes as many tracks of both clips, not {len(a)} and {len(b)}")
    (u, rest_u), (v, rest_v) = _directions(a), _directions(b)
    steps = a.shape[1] - 1
    s = (np.einsum("ntc,mtc->nm", u, v) + rest_u.astype(float) @ rest_v.T.astype(float)) / steps
    if mode == "five":
        return float((s - np.eye(len(s))).max(axis=1).mean())
    return float((s.max(axis=1).mean() + s.max(axis=0).mean()) / 2)


def _refuse_odd(a: np.ndarray, b: np.ndarray) -> None:
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise BadInput("numbers that are not finite cannot be compared: leave out tracks or frames without a value")


def _directions(tracks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit displacements ``[n, T - 1, 2]``, zero where a track rests, and where it does ``[n, T - 1]``."""
    step = np.diff(tracks, axis=1)
    length = np.linalg.norm(step, axis=-1)
    return step / np.where(length > 0, length, 1)[..., None], length == 0


def inside_box(tracks: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The tracks that begin inside the bounding box of the union of masks ``[F, H, W]``; tracks are (x, y).

    Raises:
        BadInput: an empty mask, or shapes that are none.
    """
    tracks, mask = np.asarray(tracks), np.asarray(mask)
    if tracks.ndim != 3 or tracks.shape[-1] != 2 or not tracks.shape[1] or mask.ndim != 3:
        shapes = f"{tracks.shape} and {mask.shape}"
        raise BadInput(f"tracks [tracks, frames, 2] and masks [frames, height, width] are needed, not {shapes}")
    rows, columns = np.nonzero(mask.any(axis=0))
    if not len(rows):
        raise BadInput("the mask is empty: there is no box around it")
    x, y = tracks[:, 0].T
    kept: np.ndarray = tracks[(x >= columns.min()) & (x <= columns.max()) & (y >= rows.min()) & (y <= rows.max())]
    return kept


def clip_score(frames: np.ndarray, text: np.ndarray) -> float:
    """100 max(cos, 0) of the embeddings of frames ``[F, d]`` and of a prompt ``[d]``, mean over frames.

    Raises:
        BadInput: shapes that do not fit, numbers that are not finite, or an embedding of length 0.
    """
    x, t = np.asarray(frames, float), np.asarray(text, float)
    if x.ndim != 2 or t.shape != x.shape[1:] or not len(x):
        raise BadInput(f"frames of {x.shape} and a prompt of {t.shape} do not fit")
    _refuse_odd(x, t)
    length = np.linalg.norm(x, axis=1) * np.linalg.norm(t)
    if not length.all():
        raise BadInput("an embedding of length 0 has no direction")
    cosine = x @ t / length
    return float(100 * np.maximum(cosine, 0).mean())


@dataclass(frozen=True)
class Success:
    """Shares of edits that a judge calls done; ``unread`` answers say neither, and count nowhere."""

    yes_no: Estimate
    choice: Estimate
    union: Estimate
    intersection: Estimate
    accuracy: float
    n: int
    unread: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {k: v.as_dict() if isinstance(v, Estimate) else v for k, v in self.__dict__.items()}


def five_acc(yes_no: Sequence[float | bool] | np.ndarray, choice: Sequence[float | bool] | np.ndarray) -> Success:
    """FiVE-Acc of n edits.

    Args:
        yes_no, choice: whether each is done, by either kind of question (`judged`); NaN where an answer was unreadable.

    Raises:
        BadInput: not as many of both, values beside 0, 1 and NaN, or no edit with both.
    """
    try:
        yn, mc = np.asarray(yes_no, float), np.asarray(choice, float)
    except (TypeError, ValueError) as error:
        raise BadInput("an edit is done (1), not done (0), or NaN; answers of a judge are read by `judged`") from error
    if yn.shape != mc.shape or yn.ndim != 1:
        raise BadInput(f"{yn.shape} and {mc.shape} answers are not of the same edits")
    known = ~(np.isnan(yn) | np.isnan(mc))
    if not known.any():
        raise BadInput("no edit has a readable answer of both kinds")
    if not np.isin([yn[known], mc[known]], (0, 1)).all():
        raise BadInput("an edit is done (1), not done (0), or NaN")
    a, b = yn[known].astype(bool), mc[known].astype(bool)
    yes, right, either, both = (wilson(int(part.sum()), len(part)) for part in (a, b, a | b, a & b))
    mean = float(np.mean([s.value for s in (yes, right, either, both)]))
    return Success(yes, right, either, both, mean, len(a), int((~known).sum()))


def judged(source: str | None, target: str | None, choice: str) -> tuple[float, float]:
    """Whether an edit is done by its yes-no and its multiple-choice answers; NaN for an answer that is none.

    Args:
        source: answer to whether the source's object is still there, wanted ``no``; ``None``: not asked (an addition).
        target: answer to whether the target's is there, wanted ``yes``; ``None``: not asked (a removal).
        choice: answer to the multiple choice, wanted ``b``.

    Raises:
        BadInput: neither was asked; an answer is no text.
    """
    if source is None and target is None:
        raise BadInput("a yes-no answer on the source or on the target is needed")
    if wrong := [text for text in (source, target, choice) if not isinstance(text, str | None)]:
        raise BadInput(f"answers of a judge are texts, not {wrong[0]!r}")
    asked = [(text, wanted) for text, wanted in ((source, "no"), (target, "yes")) if text is not None]
    parts = [_says(text, ("yes", "no"), wanted) for text, wanted in asked]
    yes_no = float("nan") if any(np.isnan(part) for part in parts) else float(all(parts))
    return yes_no, _says(choice, ("a", "b", "c", "d"), "b")


def _says(text: str, known: Sequence[str], wanted: str) -> float:
    word = text.strip().strip("(").lower()
    letters = next((i for i, char in enumerate(word) if not char.isalpha()), len(word))
    return float(word[:letters] == wanted) if word[:letters] in known else float("nan")


def by_kind(results: Mapping[str, Mapping[str, Sequence[float]]], scaled: bool = False) -> dict[str, float]:
    """Mean of each measure: over the clips of a kind of edit, then over kinds, each kind the same.

    Args:
        results: by kind and measure, a value a clip; NaN is left out.
        scaled: multiply as published tables do, by `SCALES`.

    Raises:
        BadInput: kinds with other measures, a kind without a clip, or unequal numbers of clips in a kind (ragged).
    """
    kinds = list(results)
    if not kinds:
        raise BadInput("no results")
    for kind in kinds:
        if results[kind].keys() != results[kinds[0]].keys():
            raise BadInput(f"kind {kind!r} has other measures than {kinds[0]!r}")
        if not all(np.ndim(values) == 1 and len(values) for values in results[kind].values()):
            raise BadInput(f"kind {kind!r} needs a list of values of each measure, one a clip")
        if len({len(values) for values in results[kind].values()}) > 1:
            raise BadInput(f"kind {kind!r} is ragged: its measures have unequal numbers of clips")
    out: dict[str, float] = {}
    for name in results[kinds[0]]:
        of_kind = [np.asarray(results[kind][name], float) for kind in kinds]
        means = [float(v[~np.isnan(v)].mean()) for v in of_kind if (~np.isnan(v)).any()]
        out[name] = (float(np.mean(means)) if means else float("nan")) * (SCALES.get(name, 1.0) if scaled else 1.0)
    return out


def _clip(frames: np.ndarray) -> np.ndarray:
    clip = np.asarray(frames)
    if clip.ndim != 4 or not clip.size:
        raise BadInput(f"a clip is [frames, height, width, channels], not {clip.shape}")
    values = clip / 255 if clip.dtype == np.uint8 else clip.astype(float)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise BadInput("pixels are bytes or numbers between 0 and 1")
    return values
