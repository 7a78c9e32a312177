from .checks import Verdict as Verdict
from .checks import check as check

__all__ = ["Verdict", "check"]
