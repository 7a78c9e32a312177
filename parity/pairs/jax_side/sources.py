"""The lines of code that equations are made by."""

from collections.abc import Sequence

from jax.extend import source_info_util
from jax.extend.core import JaxprEqn

from parity.pairs import is_tool


def source(equation: JaxprEqn) -> str:
    """Return file and line of an equation, as `file.py:88`."""
    text = source_info_util.summarize(equation.source_info).split(" ")[0]
    return "/".join(text.split(":")[0].split("/")[-3:]) + ":" + text.split(":")[1] if text else ""


_LIBRARIES = (
    *(f"-packages/{name}/" for name in ("jax", "jaxlib", "flax", "optax", "einops", "equinox")),
    "<frozen",
)


def user_line(equation: JaxprEqn, callers: Sequence[JaxprEqn]) -> str:
    """Return file and line of the user's code that makes an equation, or that calls what makes it.

    That of a library, if no code of the user's is known.
    """
    for made in (equation, *reversed(callers)):
        traceback = made.source_info.traceback
        for frame in traceback.frames if traceback else ():
            file = frame.file_name
            if not is_tool(file) and not any(part in file for part in _LIBRARIES):
                return f"{'/'.join(file.split('/')[-3:])}:{frame.line_num}"
    return next(filter(None, map(source, (equation, *reversed(callers)))), "")
