"""The command line: parses, calls the public function of the same name, prints. Heavy imports wait until needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``handful`` with ``argv`` (by default the process's own) and return the exit status.

    0 done; 1 failure; 2 bad input or usage; 3 a requirement was not met; 130 Ctrl-C.
    """
    from handful.cli.exits import failed, own_warnings, prepare_streams

    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    debug = "--debug" in args
    prepare_streams()
    # Threads that wait, sleep: by default they spin, and beside other busy programs a fit takes ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with own_warnings(debug):
            status = _invoke(args)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        return failed(error, debug)
    return status


def _invoke(args: list[str]) -> int:
    """Parse and call. The parser's own `main` is not used: it swallows broken pipes and Ctrl-C its own way."""
    from typer import Exit
    from typer.main import get_command

    from handful.cli.app import app

    command = get_command(app)
    try:
        with command.make_context("handful", args) as context:
            command.invoke(context)
    except Exit as done:  # after --help, for one
        return done.exit_code
    return 0
