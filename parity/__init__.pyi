from .benchmark import Benchmark as Benchmark
from .checks import Verdict as Verdict
from .checks import check as check
from .diagnosis import Diagnosis as Diagnosis
from .diagnosis import diagnose as diagnose
from .timing import bench as bench
from .trajectory import Trajectory as Trajectory
from .trajectory import train as train

__all__ = ["Benchmark", "Diagnosis", "Trajectory", "Verdict", "bench", "check", "diagnose", "train"]
