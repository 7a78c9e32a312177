"""Proof that two implementations of a training step are the same computation.

The public names stand in `__init__.pyi`; nothing heavy is imported until one is used.
"""

import lazy_loader

from parity.contract.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
