"""`handful advise …`: options."""

from __future__ import annotations

from typing import Annotated, Literal

from typer import Argument, Option, Typer

from handful.cli import options as o
from handful.cli.bench import split
from handful.cli.call import call

advise = Typer(
    name="advise",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Say which method, encoder or model to use, and on what grounds.",
)


def advise_method(
    have: Annotated[
        list[str] | None,
        Option(
            metavar="WHAT",
            help="What there is beside labels: class-names, unlabelled, all-queries, background, language-model, or a "
            "view such as crops; repeat it, or a,b.",
        ),
    ] = None,
    shots: Annotated[int, Option(metavar="K", help="Labelled examples a class.")] = 5,
    cost: Annotated[
        str | None, Option(metavar="COST", help="The most a method may cost: closed-form, gradient or one-by-one.")
    ] = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Say which methods can run with what is at hand, and which of them did best where they were measured."""
    from handful.cli.bench import split
    from handful.cli.show_advise import method_object, show_methods
    from handful.commands.advise import advise_method as run

    given = split(have or [])
    found = run(have=given, shots=shots, cost=cost)
    if json:
        from handful.cli.objects import print_object

        print_object(method_object(found, given, shots))
    else:
        show_methods(found, given, shots)


def advise_encoder(
    sources: o.Sources,
    encoders: Annotated[
        list[str] | None,
        Option("--encoder", metavar="NAME", help="Judge this one beside the built-in ones, hf:NAME too; repeat it."),
    ] = None,
    head: Annotated[str, Option(metavar="KEY", help="The simple head they are judged by.")] = "logistic",
    folds: Annotated[int, Option(metavar="F", help="At most.")] = 5,
    text: o.Text = None,
    image: o.Image = None,
    label: o.Label = None,
    group: o.Group = None,
    seed: o.Seed = 0,
    merge_labels: o.MergeLabels = False,
    skip_bad: o.SkipBad = False,
    cache: o.Cache = True,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Judge encoders on a few labelled examples: a simple head on each, answers out of fold, compared in pairs."""
    result = call(advise_encoder, locals(), then="Judging")
    if json:
        from handful.cli.objects import print_object

        print_object(result.as_dict())
    elif not quiet:
        from handful.cli.show_advise import show_encoders

        show_encoders(result)


def advise_context(
    sources: o.Sources,
    context: Annotated[
        str, Option(metavar="COL", help="Column that says what an item is seen with: a background, a site, a style.")
    ],
    heads: Annotated[list[str], Option("--head", metavar="KEY", help="Head to judge; repeat it, or a,b.")],
    ways: Annotated[int, Option(metavar="N", help="Classes an episode.")] = 5,
    shots: Annotated[int, Option(metavar="K", help="Examples a class to learn from.")] = 5,
    queries: Annotated[int, Option(metavar="Q", help="Examples a class to answer.")] = 15,
    episodes: Annotated[int, Option(metavar="E", help="How many.")] = 600,
    rho: Annotated[float, Option(metavar="P", help="Share of the examples from the one context of their class.")] = 1.0,
    skip_few: Annotated[bool, Option("--skip-few", help="Leave out classes with too few contexts.")] = False,
    seed: o.Seed = 0,
    text: o.Text = None,
    image: o.Image = None,
    label: o.Label = None,
    encoder: o.Encoder = None,
    merge_labels: o.MergeLabels = False,
    skip_bad: o.SkipBad = False,
    cache: o.Cache = True,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Say how much accuracy falls where each class is learnt in one context and asked in others."""
    result = call(advise_context, {**locals(), "heads": split(heads)}, then="Judging")
    if json:
        from handful.cli.objects import print_object

        print_object({"schema": "handful/advise-context/1", **result.as_dict()})
    elif not quiet:
        from handful.cli.show_advise import show_context

        show_context(result)


def advise_models(
    versions: Annotated[
        list[str],
        Argument(
            metavar="TABLE",
            help="A version of a benchmark: a row a model that was run, its name first, a column a question, 0 to 1.",
        ),
    ],
    rerun: Annotated[int, Option(metavar="M", help="How many models to run on the next version.")] = 5,
    solver: Annotated[
        Literal["exact", "adam"], Option(metavar="NAME", help="exact, or adam: the authors', which stops early.")
    ] = "exact",
    seed: Annotated[int, Option(metavar="N", help="Of the start of adam.")] = 0,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Say what models would score on versions of a benchmark they were not run on, and which to run next."""
    from handful.commands.advise import advise_models as run

    found = run(versions, rerun=rerun, solver=solver, seed=seed).as_dict()
    if json:
        from handful.cli.objects import print_object

        print_object({"schema": "handful/advise-models/1", **found})
    else:
        from handful.cli.show_advise import show_models

        show_models(found)


def advise_raters(
    sheets: Annotated[
        list[str],
        Argument(
            metavar="SHEET", help="A rater: tab-separated, images first, a column a model, cells [SC, PQ] of 0, 0.5, 1."
        ),
    ],
    claim: Annotated[
        list[str] | None, Option(metavar="A>B", help="Check that model A is rated better than B; may be repeated.")
    ] = None,
    overall: Annotated[
        Literal["geometric", "weighted"],
        Option(metavar="NAME", help="O from both: geometric, sqrt(SC PQ), or weighted, 0.7 SC + 0.3 PQ."),
    ] = "geometric",
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Say how generators of images are rated, and how far their raters agree."""
    from handful.commands.advise import advise_raters as run

    found = run(sheets, claim=claim, overall=overall).as_dict()
    if json:
        from handful.cli.objects import print_object

        print_object({"schema": "handful/advise-raters/1", **found})
    else:
        from handful.cli.show_advise import show_raters

        show_raters(found, len(sheets))


advise.command("method", short_help="Which method, given what is at hand.")(advise_method)
advise.command("encoder", short_help="Which encoder, from a few labels.")(advise_encoder)
advise.command("context", short_help="What accuracy owes to a context.")(advise_context)
advise.command("models", short_help="Scores of models that were not run.")(advise_models)
advise.command("raters", short_help="Ratings of generators, and agreement.")(advise_raters)
