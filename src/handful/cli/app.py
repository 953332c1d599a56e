"""`handful` and its commands: each parses its options, calls the public function of its name, shows the result."""

from __future__ import annotations

from typing import Annotated

from typer import Exit, Option, Typer, echo

from handful.cli import options as o
from handful.cli.advise import advise
from handful.cli.audit import audit
from handful.cli.bench import bench
from handful.cli.compress import compress
from handful.cli.demo import demo
from handful.cli.evaluate import evaluate
from handful.cli.fit import fit
from handful.cli.forecast import forecast
from handful.cli.grow import grow
from handful.cli.inspect import inspect
from handful.cli.listing import cache, list_
from handful.cli.next import next_
from handful.cli.predict import predict
from handful.cli.tune import tune

app = Typer(
    name="handful",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from handful import __version__

        echo(f"handful {__version__}")
        raise Exit


@app.callback()
def handful(
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    debug: o.Debug = False,
) -> None:
    """Learn from a handful of labelled examples: text, images, features.

    \b
    handful demo                                          try it, needs no data
    handful fit tickets.csv --out tickets.handful         learn from your labels
    handful predict tickets.handful new.csv --out a.csv   use what was learnt
    """


app.command(short_help="Learn from labelled examples.")(fit)
app.command(short_help="Learn, and change the encoder a little where that helps.")(tune)
app.command(short_help="Label a table, images, or lines as they come.")(predict)
app.command(short_help="Compare a model's answers with known labels.")(evaluate)
app.command(short_help="Add classes to a model.")(grow)
app.command(short_help="Make a tuned model's file smaller.")(compress)
app.command(short_help="Say what more labels would bring.")(forecast)
app.command("next", short_help="Choose what to label next.")(next_)
app.command(short_help="Say whether a model can be trusted on other data.")(audit)
app.command(short_help="Say what a model file is and what it gives away.")(inspect)
app.command(short_help="Compare heads on the same small tasks.")(bench)
app.add_typer(advise, short_help="Which method, encoder or model.")
app.command("list", short_help="List heads, encoders, papers, recipes.")(list_)
app.command(short_help="Look at the kept features, or remove them.")(cache)
app.command(short_help="Two models from nothing: support tickets and digits.")(demo)
