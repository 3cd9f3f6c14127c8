"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The configuration; default: $AGENTFLOW_CONFIG, else ./agentflow.json.",
        show_default=False,
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        help="sqlite:///path/to/file.db or postgresql://…, instead of the file's. Other users of this "
        "machine can see a password that is given here: better set $AGENTFLOW_DATABASE.",
        show_default=False,
    ),
]
