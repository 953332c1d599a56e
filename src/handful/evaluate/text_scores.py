"""What a two-tower model's text tower alone says of how it will do on a task that is described in words.

Paper 082: Zohar, Huang, Wang, Yeung, "LOVM: Language-Only Vision Model Selection", 2023. Captions stand in for images:

    w_c                mean over templates of the unit embeddings of class c, of unit length
    text-f1, text-acc1 macro-F1 and accuracy of classifying captions D_c + sigma noise by D w
    intraclass_sim     mean over c of the largest w_c' w_c, c' another class
    inter_close        mean over c of the mean over captions D_c w_c
    intra_close        mean over c of the largest, over c' not c, mean over captions D_c w_c'
    superclass_metric  mean over c of the mean over synonyms of w_c
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import f1_score
from sklearn.preprocessing import normalize

from handful.errors import BadInput

SIGMA = 0.1
TEXT_SCORES = ("text-f1", "text-acc1", "superclass_metric", "inter_close", "intra_close", "intraclass_sim")


def text_scores(
    encode: Callable[[list[str]], Any],
    class_names: Sequence[str],
    captions: Mapping[str, Sequence[str]],
    synonyms: Mapping[str, Sequence[str]],
    templates: Sequence[str],
    *,
    sigma: float = SIGMA,
    seed: int | None = None,
) -> dict[str, float]:
    """The six scores of one model on one task.

    Args:
        encode: texts to embeddings ``[n, d]``, by the model's text tower.
        class_names: C names.
        captions: by class, what a language model would caption its images with.
        synonyms: by class, synonyms and superclasses.
        templates: with ``{c}`` where the class name goes.
        sigma: of the noise on captions.
        seed: of the noise; needed where there is any.

    Raises:
        BadInput: fewer than two classes, a class without captions or synonyms, a template without ``{c}``, noise
            without a seed.
    """
    missing = next((t for t in templates if "{c}" not in t), None)
    if missing is not None or not templates:
        raise BadInput(f"template {missing!r} has no {{c}} for the class name" if templates else "no templates given")
    for what, by_class in (("captions", captions), ("synonyms", synonyms)):
        bare = next((name for name in class_names if not by_class.get(name)), None)
        if bare is not None:
            raise BadInput(f"class {bare!r} has no {what}: every class needs some")
        single = next((name for name in class_names if isinstance(by_class[name], str)), None)
        if single is not None:
            raise BadInput(f"{what} of class {single!r} are a list, not the one text {by_class[single]!r}")
    filled = [np.asarray(encode([t.replace("{c}", name) for t in templates]), float) for name in class_names]
    means = [normalize(rows).mean(axis=0) for rows in filled]
    embedded = [[np.asarray(encode(list(of[name])), float) for name in class_names] for of in (captions, synonyms)]
    return scores_of_embeddings(np.array(means), *embedded, sigma=sigma, seed=seed)


def scores_of_embeddings(
    weights: Any, captions: Sequence[Any], synonyms: Sequence[Any], *, sigma: float = SIGMA, seed: int | None = None
) -> dict[str, float]:
    """The six scores from class weights ``[C, d]`` and each class' captions and synonyms ``[n_c, d]``.

    All are brought to unit length first; the noise is not.

    Raises:
        BadInput: as `text_scores`.
    """
    w = np.asarray(weights, float)
    if w.ndim != 2 or len(w) < 2 or len(captions) != len(w) or len(synonyms) != len(w):
        raise BadInput(f"{len(w)} classes, captions of {len(captions)}, synonyms of {len(synonyms)}: need 2 of each")
    if not all(len(rows) for rows in (*captions, *synonyms)):
        raise BadInput("a class has no captions or no synonyms: every class needs some")
    for rows in (w, *captions, *synonyms):
        if np.shape(rows)[1:] != w.shape[1:] or not np.isfinite(np.asarray(rows, float)).all():
            raise BadInput(f"embeddings are finite, all of width {w.shape[1]}, unlike one of shape {np.shape(rows)}")
    if not 0 <= sigma < np.inf:
        raise BadInput(f"sigma is a finite number from 0, not {sigma}")
    if sigma > 0 and seed is None:
        raise BadInput(f"noise of sigma={sigma:g} needs a seed: give seed=0, or sigma=0")
    w = normalize(w)
    texts = [normalize(np.asarray(rows, float)) for rows in captions]
    labels = np.repeat(np.arange(len(w)), [len(rows) for rows in texts])
    noise = np.random.default_rng(seed).normal(0, sigma, (len(labels), w.shape[1])) if sigma > 0 else 0.0
    answers = ((np.concatenate(texts) + noise) @ w.T).argmax(axis=1)
    close = np.stack([(rows @ w.T).mean(axis=0) for rows in texts])
    other = ~np.eye(len(w), dtype=bool)
    alike = np.where(other, w @ w.T, 0.0)
    superclass = [(normalize(np.asarray(rows, float)) @ v).mean() for rows, v in zip(synonyms, w, strict=True)]
    return {
        "text-f1": float(f1_score(labels, answers, average="macro")),
        "text-acc1": float((answers == labels).mean()),
        "superclass_metric": float(np.mean(superclass)),
        "inter_close": float(np.diag(close).mean()),
        "intra_close": float(np.where(other, close, -np.inf).max(axis=1).mean()),
        "intraclass_sim": float(alike.max(axis=1).mean()),
    }
