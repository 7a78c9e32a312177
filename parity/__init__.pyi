from .checks import Verdict as Verdict
from .checks import check as check
from .trajectory import Trajectory as Trajectory
from .trajectory import train as train

__all__ = ["Trajectory", "Verdict", "check", "train"]
