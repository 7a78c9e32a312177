"""The network and its training in PyTorch; `jaxcnn` is its mirror image.

The public names are in `__init__.pyi`; nothing heavy is imported until one is used.
"""

import lazy_loader

from parity.contract.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
