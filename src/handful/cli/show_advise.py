"""What `handful advise` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from handful.cli.layout import count, faint, short, some, strong, table
from handful.cli.terminal import show

if TYPE_CHECKING:
    from handful.commands.advise_context import ContextAdvice
    from handful.evaluate.cards import Advice
    from handful.evaluate.encoder_choice import EncoderAdvice

MOST = 12
"""Methods shown on a terminal; ``--json`` has all."""


def method_object(found: Sequence[Advice], have: Sequence[str], shots: int) -> dict[str, Any]:
    """What was asked, and every method that can run."""
    methods = [advice.as_dict() for advice in found]
    return {"schema": "handful/advise-method/1", "have": list(have), "shots": shots, "methods": methods}


def show_methods(found: Sequence[Advice], have: Sequence[str], shots: int) -> None:
    """Print the methods that can run, the measured ones first."""
    with_what = f" and {some(have)}" if have else ""
    show(strong(f"{count(len(found), 'method')} can run with {count(shots, 'example')} a class{with_what}"))
    show(faint("Points behind the best head where both were measured, with the built-in encoders; – is not measured."))
    rows = [
        [
            advice.card.key,
            "–" if advice.behind is None else f"{advice.behind:.1f}",
            advice.card.cost,
            advice.card.place,
            "; ".join(advice.reasons[1:] if advice.behind is None else advice.reasons[2:]),
        ]
        for advice in found[:MOST]
    ]
    show("", table(("head", "behind", "learns by", "knowledge enters at", "note"), rows, right=[1], limit=120))
    if len(found) > MOST:
        show("", faint(f"{len(found) - MOST} more: --json lists all, handful list heads says what they are"))
    if found and found[0].behind is not None:
        show("", f"Start with {found[0].card.key}; check on your data: handful bench DATA --head {_both(found)}")


def _both(found: Sequence[Advice]) -> str:
    return ",".join(advice.card.key for advice in found[:2])


def show_encoders(result: EncoderAdvice) -> None:
    """Print the encoders, best first."""
    found = result.as_dict()
    what = f"{count(found['items'], 'example')}, {count(found['classes'], 'class', 'classes')}"
    show(strong(f"{what}: {some(found['sources'], 3)}"))
    show(faint(f"Accuracy of {found['head']} out of fold, 95 % interval; differences from the best in points, paired."))
    rows = []
    for row in found["encoders"]:
        b = row["behind"]
        behind = "best" if b is None else f"-{100 * b['value']:.1f} [{-100 * b['high']:+.1f}, {-100 * b['low']:+.1f}]"
        rows.append([row["encoder"], str(row["dim"]), short("accuracy", row["accuracy"]), behind])
    show("", table(("encoder", "width", "accuracy", "difference"), rows, right=[1]))
    best = found["encoders"][0]
    show("")
    if len(rows) == 1:
        show(f"{best['encoder']} is the only one judged: name others with --encoder")
    elif found["shown"]:
        show(f"{best['encoder']} is better than each of the others")
    else:
        show("No encoder is shown to be better than each of the others: take the smaller one, or label more")
    show(*(faint(f"Limit: {line}") for line in best["limits"]))


def show_context(result: ContextAdvice) -> None:
    """Print accuracy with and without the context, and the gap."""
    found = result.as_dict()
    show(strong(f"{count(found['n'], 'item')} in {count(found['contexts'], 'context')}: {some(found['sources'], 3)}"))
    what = f"{found['ways']}-way {found['shots']}-shot, {found['episodes']} episodes"
    show(faint(f"{what}; the same queries, in percent with 95 % intervals; the gap is paired."))
    rows = [[row["head"], *(_percent(row[name]) for name in ("control", "spurious", "gap"))] for row in found["heads"]]
    show("", table(("head", "contexts of the queries", "one context a class", "gap"), rows, right=[1, 2, 3]))
    if found["shift"] is not None:
        concept, context = (found["shift"][name]["value"] for name in ("concept", "context"))
        show("", f"Cosine of images to the words of their class {concept:.3f}, of their context {context:.3f}")
    if found["skipped"]:
        show(faint(f"Left out for too few contexts: {some(found['skipped'])}"))


def _percent(e: Mapping[str, float]) -> str:
    return f"{100 * e['value']:.1f} [{100 * e['low']:.1f}, {100 * e['high']:.1f}]"


def show_models(found: Mapping[str, Any]) -> None:
    """Print a row a model, the ablest first; what was predicted is marked."""
    show(strong(f"{count(len(found['models']), 'model')} on {count(len(found['versions']), 'version')}"))
    show(faint("Scores in percent; ~ is predicted from the models that were run (Rasch)."))
    rows = [
        [model["model"], *(f"{'' if s['measured'] else '~'}{100 * s['score']:.1f}" for s in model["scores"])]
        for model in sorted(found["models"], key=lambda model: -model["ability"])
    ]
    show("", table(("model", *found["versions"]), rows, right=range(1, 1 + len(found["versions"]))))
    show("", f"Run next, with every new model: {some(found['rerun'])}")


def show_raters(found: Mapping[str, Any], raters: int) -> None:
    """Print a row a model, and what the claims come to."""
    show(strong(f"{count(len(found['models']), 'model')} rated by {raters}"))
    show(faint("SC keeps what was asked for, PQ looks natural, O both; ± over raters. Agreement on O."))
    rows = []
    for model in found["models"]:
        scores = [f"{model['mean'][name]:.2f} ± {model['sd'][name]:.2f}" for name in ("SC", "PQ", "O")]
        alpha, kappa = (model["agreement"]["O"][name] for name in ("alpha", "kappa"))
        agree = ["–" if value is None else f"{value:.2f}" for value in (alpha, kappa)]
        rows.append([model["model"], str(model["images"]), *scores, *agree])
    show("", table(("model", "images", "SC", "PQ", "O", "alpha", "kappa"), rows, right=range(1, 7)))
    for claim in found["claims"]:
        d = claim["difference"]
        verdict = "holds" if claim["holds"] else "does not hold"
        if claim["holds"] and d["low"] <= 0:
            verdict = "holds in the mean, within chance"
        by = f"{d['value']:+.2f} [{d['low']:+.2f}, {d['high']:+.2f}]"
        show("", f"{claim['better']} better than {claim['worse']}: {verdict}; O differs by {by}")
