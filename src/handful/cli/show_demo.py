"""What `handful demo` prints: both jobs, the commands that do the same, and where everything lies."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from handful.cli.layout import facts, strong
from handful.cli.show_fit import headline, trust
from handful.cli.show_predictions import show_rows, tally
from handful.cli.terminal import show
from handful.cli.text import visible

if TYPE_CHECKING:
    from rich.table import Table

    from handful.commands.demo import Demo
    from handful.ship.model import Model

ROWS = 5


def show_demo(made: Demo) -> None:
    """Print what the demo did."""

    def at(*names: str) -> str:
        return visible(shlex.quote(str(made.folder.joinpath(*names))))

    show(
        strong("1  Support tickets"),
        "",
        f"$ handful fit {at('tickets.csv')} --class-names {at('intents.csv')} --out {at('tickets.handful')} "
        f"--report {at('tickets.html')}",
        _learnt(made.tickets),
        "",
        f"$ handful predict {at('tickets.handful')} {at('new_tickets.csv')} --out {at('labelled_tickets.csv')}",
        tally(made.labelled),
    )
    show_rows(made.labelled, ROWS)
    show(
        "",
        strong("2  Pictures of handwritten digits"),
        "",
        f"$ handful fit {at('digits', 'learn')} --test {at('digits', 'test')} --out {at('digits.handful')} "
        f"--report {at('digits.html')}",
        _learnt(made.digits),
        "",
        strong("Where things lie"),
        facts(
            [
                ("Models", [at("tickets.handful"), at("digits.handful")]),
                ("Reports", [at("tickets.html"), at("digits.html")]),
                ("Answers", [at("labelled_tickets.csv")]),
            ]
        ),
    )


def _learnt(model: Model) -> Table:
    seconds = f"{sum(model.seconds.values()):.1f}"
    return facts([("Learnt", [headline(model.card)]), *trust(model.card), ("Seconds", [seconds])])
