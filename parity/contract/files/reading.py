"""Reading checkpoints that may be damaged or hostile: one short line that names the file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from parity.contract.errors import CheckpointError, CnnParityError

LARGEST = 2**26
"""Bytes of a checkpoint, in any format; its arrays take less than one million."""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise CheckpointError, which names the file, whatever a damaged one makes a library raise."""
    try:
        if path.exists():
            yield
            return
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:
        kind = "" if isinstance(error, CnnParityError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())[:300]  # a hostile one is as long as it likes
        reason = "".join(c if c.isprintable() else "?" for c in reason)
        raise CheckpointError(
            f"{path} is not a checkpoint of this network: {reason}; use another checkpoint"
        ) from error
    raise CheckpointError(f"{path} is not there; use another checkpoint")


def content_of(path: Path) -> bytes:
    """Return the bytes of a checkpoint's file; raise CheckpointError for what cannot be one."""
    if not path.is_file():
        raise CheckpointError("it is not a file")
    if path.stat().st_size > LARGEST:
        raise CheckpointError(f"it has more than {LARGEST} bytes")
    return path.read_bytes()
