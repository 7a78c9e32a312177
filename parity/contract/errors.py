"""The errors that a user can mend; each says what, got, expected and what helps."""

import contextlib
from collections.abc import Iterator


class CnnParityError(Exception):
    """Base of every error that the command lines print as one line instead of a traceback."""

    exit_code = 2
    silent = False
    """Whether another process of the same training prints it."""


class RecipeError(CnnParityError, ValueError):
    """A recipe's field, or a command line's option, has a value that is not allowed."""


class DataError(CnnParityError):
    """A data set is missing, damaged, or not the one that was asked for."""


class DeviceError(CnnParityError):
    """A device, or the compiler that a mode needs, is not on this machine."""


class StateError(CnnParityError, ValueError):
    """Parameters or optimiser state have the wrong names, shapes or dtype."""


class CheckpointError(CnnParityError):
    """A checkpoint is missing, damaged, of another kind, or says what cannot be."""


class ProcessError(CnnParityError):
    """A process of a training has not come, is lost, or is to train something else."""


class OutputError(CnnParityError):
    """A result could not be written where it was asked for."""


class DivergenceError(CnnParityError):
    """A loss, or a number of the state, is no longer finite."""

    exit_code = 1


class NondeterminismError(CnnParityError):
    """The same computation gave two results, so that nothing can be said about it."""

    exit_code = 3


class StoppedError(CnnParityError):
    """A training was asked to stop by a signal, and has."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def missing_package(error: ImportError) -> str:
    """Return what an import of another's package failed for, and what helps."""
    package = (error.name or "").partition(".")[0] or "a package"
    if isinstance(error, ModuleNotFoundError):
        return f"{package} is not installed; install it: python -m pip install {package}"
    return f"{package} cannot be imported ({error}); install it again"


COMMON = (StoppedError, DivergenceError, ProcessError)
"""What all processes of a training raise at the same step."""


@contextlib.contextmanager
def os_errors_as(kind: type[CnnParityError], what: str, hint: str = "") -> Iterator[None]:
    """Raise `kind`, which says what failed, why, and what helps, for an OSError of the block."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: {error.strerror or error}{hint}") from None
