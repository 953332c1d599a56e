"""The options that several commands share, each written once."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

Model = Annotated[str, Argument(metavar="MODEL", help="A model that `handful fit` saved.")]
Source = Annotated[
    str, Argument(metavar="SOURCE", help="A table (CSV, TSV, JSON, Parquet, Excel), folder or ZIP of images, or .npz.")
]
Sources = Annotated[
    list[str],
    Argument(
        metavar="SOURCE",
        help="Labelled examples: a table (CSV, TSV, JSON, Parquet, Excel), a folder or ZIP of images with a folder a "
        "class, or an .npz of features; several are joined.",
    ),
]
Text = Annotated[list[str] | None, Option(metavar="COL", help="Column of the text; may be repeated.")]
Image = Annotated[str | None, Option(metavar="COL", help="Column of image paths.")]
Label = Annotated[str | None, Option(metavar="COL", help="Column of the label.")]
Group = Annotated[
    str | None,
    Option(
        metavar="COL",
        help="Column that says which examples belong together (a customer, a patient): never split between learning "
        "and checking.",
    ),
]
GroupRegex = Annotated[
    str | None, Option(metavar="REGEX", help="The same for files: what it finds in a path names the group.")
]
NearDuplicates = Annotated[
    bool,
    Option(
        "--near-duplicates/--no-near-duplicates",
        show_default=False,
        help="Keep examples that are nearly the same together (default), or not.",
    ),
]
UsedEncoder = Annotated[
    str | None,
    Option(metavar="NAME", help="Where the model's encoder is, hf:NAME or hf:FOLDER, if it is not a built-in one."),
]
ClassNames = Annotated[
    str | None,
    Option(
        metavar="FILE", help="What each label means: a table of label and description, JSON, or sentences in a .pt."
    ),
]
Encoder = Annotated[
    str | None,
    Option(
        metavar="NAME", help="Encoder, as `handful list encoders` names it, or hf:NAME. By default the built-in one."
    ),
]
AmongClasses = Annotated[
    list[str] | None,
    Option(
        metavar="NAME",
        help="Choose among these classes only; may be repeated. `all`: also those without examples that the model "
        "knows by their class names; `new`: those alone.",
    ),
]
MergeLabels = Annotated[bool, Option("--merge-labels", help="Treat labels that differ only in case or blanks as one.")]
SkipBad = Annotated[bool, Option("--skip-bad", help="Leave out items that cannot be read, and count them.")]
Cache = Annotated[
    bool, Option("--cache/--no-cache", show_default=False, help="Keep features, and use those kept (default), or not.")
]
Seed = Annotated[int, Option(metavar="S", help="Seed of every random draw.")]
Force = Annotated[bool, Option("--force", help="Replace what is there.")]
ExcelSafe = Annotated[
    bool, Option("--excel-safe", help="Put an apostrophe before text that a spreadsheet would take for a formula.")
]
Json = Annotated[bool, Option("--json", help="Print one JSON object instead.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress bar, no summary.")]
Debug = Annotated[bool, Option("--debug", help="Show a traceback when something fails.")]
