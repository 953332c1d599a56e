"""`handful bench`: options and table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from typer import Option

from handful.cli import options as o
from handful.cli.terminal import progress_bar
from handful.errors import BadInput


def bench(
    sources: o.Sources,
    heads: Annotated[
        list[str], Option("--head", metavar="KEY", help="Head to judge; repeat it, or a,b. The first is the reference.")
    ],
    ways: Annotated[str, Option(metavar="N", help="Classes an episode, or any: 5 to 50.")] = "5",
    shots: Annotated[
        list[str] | None,
        Option(metavar="K", help="Examples a class to learn from; repeat it, or a,b; or any. 1,5 by default."),
    ] = None,
    queries: Annotated[int, Option(metavar="Q", help="Examples a class to answer.")] = 15,
    episodes: Annotated[int | None, Option(metavar="E", help="How many; 600 by default.")] = None,
    base: Annotated[str | None, Option(metavar="FILE", help="Base classes, for heads that learn from them.")] = None,
    imbalance: Annotated[
        str | None, Option(metavar="dirichlet:A", help="Class proportions of the queries are drawn, A how evenly.")
    ] = None,
    set_: Annotated[
        list[str] | None, Option("--set", metavar="HEAD.PARAM=VALUE", help="Parameter of a head; may be repeated.")
    ] = None,
    tune_on: Annotated[
        str | None,
        Option(metavar="FILE", help="Validation classes: parameters of every head are chosen on them, then tested."),
    ] = None,
    budget: Annotated[int, Option(metavar="N", help="Settings of each head that --tune-on tries.")] = 20,
    save_episodes: Annotated[str | None, Option(metavar="FILE", help="Where to write the drawn episodes.")] = None,
    episodes_from: Annotated[str | None, Option(metavar="FILE", help="Use the episodes of that file.")] = None,
    seed: o.Seed = 0,
    out: Annotated[str | None, Option(metavar="FILE", help="Results: .csv, .json or .tex.")] = None,
    text: o.Text = None,
    image: o.Image = None,
    label: o.Label = None,
    class_names: o.ClassNames = None,
    encoder: o.Encoder = None,
    merge_labels: o.MergeLabels = False,
    skip_bad: o.SkipBad = False,
    cache: o.Cache = True,
    suite: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="A published protocol: closer-look, rsvlm-benchmark, elevater, fewclue, cross-domain, fscil, "
            "generalised. Each source is a data set; --encoder may be a,b; --out FILE.json goes on where it stopped.",
        ),
    ] = None,
    table: Annotated[
        Literal["md", "tex"] | None,
        Option(metavar="md|tex", help="Print a Markdown or LaTeX table; bold only what a test shows."),
    ] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Judge heads on many small tasks drawn from labelled data, the same tasks for each.

    The table gives the mean accuracy over episodes and the paired difference from the first head, with 95 % intervals.
    """
    if table not in (None, "md", "tex"):
        raise BadInput(f"--table is md or tex, not {table!r}")
    with progress_bar(quiet, then="Judging") as progress:
        from handful.commands.bench import bench as run

        result = run(
            sources,
            heads=split(heads),
            ways=number_or_any("--ways", ways),
            shots=[number_or_any("--shots", k) for k in split(shots)] if shots else None,
            queries=queries,
            episodes=episodes,
            base=base,
            imbalance=imbalance,
            set_=pairs(set_ or []),
            tune_on=tune_on,
            budget=budget,
            save_episodes=save_episodes,
            episodes_from=episodes_from,
            seed=seed,
            out=out,
            text=text or None,
            image=image,
            label=label,
            class_names=class_names,
            encoder=encoder,
            merge_labels=merge_labels,
            skip_bad=skip_bad,
            cache=cache,
            suite=suite,
            progress=progress,
        )
    from handful.cli.show_suite import show_comparison

    show_comparison(result, out, markup=table, json=json, quiet=quiet)


def split(values: Sequence[str]) -> list[str]:
    """``["1,5", "10"]`` as ``["1", "5", "10"]``."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def number_or_any(option: str, value: str) -> int | Literal["any"]:
    """A whole number or ``"any"``. Raises `BadInput` for anything else."""
    if value == "any":
        return "any"
    try:
        return int(value)
    except ValueError as error:
        raise BadInput(f"{option} is a whole number or 'any', not {value!r}") from error


def pairs(values: Sequence[str]) -> dict[str, str]:
    """``["gda.alpha=1"]`` as ``{"gda.alpha": "1"}``. Raises `BadInput` without an equals sign."""
    found = {}
    for value in values:
        name, equals, setting = value.partition("=")
        if not equals:
            raise BadInput(f"--set is head.param=value, such as gda.alpha=1, not {value!r}")
        found[name.strip()] = setting.strip()
    return found
