"""`handful advise method` and `handful advise encoder`: options."""

from __future__ import annotations

from typing import Annotated

from typer import Option, Typer

from handful.cli import options as o
from handful.cli.call import call

advise = Typer(
    name="advise",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Say which method or which encoder to use, and on what grounds.",
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


advise.command("method", short_help="Which method, given what is at hand.")(advise_method)
advise.command("encoder", short_help="Which encoder, from a few labels.")(advise_encoder)
