from .checks import Verdict as Verdict
from .checks import check as check
from .diagnosis import Diagnosis as Diagnosis
from .diagnosis import diagnose as diagnose
from .trajectory import Trajectory as Trajectory
from .trajectory import train as train

__all__ = ["Diagnosis", "Trajectory", "Verdict", "check", "diagnose", "train"]
