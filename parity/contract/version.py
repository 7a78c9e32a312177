"""Which version of the project this is, and when and by what a result was made."""

import datetime as dt
import shlex
import sys
from pathlib import Path

__version__ = "0.1.0"


def provenance() -> dict[str, str]:
    """Return the date in UTC, to the minute, and the command line, or that it was called."""
    program, *arguments = sys.argv
    path = Path(program)
    name = path.parent.name if path.name == "__main__.py" else path.stem
    ours = name in ("parity", "torchcnn", "jaxcnn")
    command = shlex.join([name, *arguments]) if ours else "called from Python"
    now = dt.datetime.now(dt.UTC)
    return {"date": f"{now:%Y-%m-%d %H:%M} UTC", "command": command}
