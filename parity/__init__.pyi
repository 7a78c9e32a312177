from .benchmark.bench import bench as bench
from .benchmark.result import Benchmark as Benchmark
from .judge.check import Verdict as Verdict
from .judge.check import check as check
from .judge.diagnosis import Diagnosis as Diagnosis
from .judge.diagnosis import diagnose as diagnose
from .judge.trajectory import Trajectory as Trajectory
from .judge.trajectory import train as train

__all__ = ["Benchmark", "Diagnosis", "Trajectory", "Verdict", "bench", "check", "diagnose", "train"]
