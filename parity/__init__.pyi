from .benchmark.bench import bench as bench
from .benchmark.result import Benchmark as Benchmark
from .judge.check import Verdict as Verdict
from .judge.check import check as check
from .judge.diagnosis import Diagnosis as Diagnosis
from .judge.diagnosis import diagnose as diagnose
from .judge.trajectory import Trajectory as Trajectory
from .judge.trajectory import train as train
from .pairs.judging import prove as prove
from .pairs.pair import Accept as Accept
from .pairs.pair import Pair as Pair
from .pairs.proof import Proof as Proof
from .report.page import write_report as write_report

__all__ = [
    "Accept",
    "Benchmark",
    "Diagnosis",
    "Pair",
    "Proof",
    "Trajectory",
    "Verdict",
    "bench",
    "check",
    "diagnose",
    "prove",
    "train",
    "write_report",
]
