"""What is freed goes back to the system, between the parts of a proof."""

import ctypes
import sys


def trim() -> None:
    """Return freed memory, of which glibc would keep gigabytes after a large pair's arrays."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):  # musl has none, and keeps less
            library.malloc_trim(0)
