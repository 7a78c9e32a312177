from .checkpoints import read_native as read_native
from .checkpoints import write_native as write_native
from .data import load_dataset as load_dataset
from .device import computing as computing
from .device import environment as environment
from .device import resolve as resolve
from .device import versions as versions
from .harness import session as session
from .harness import workload as workload
from .model import CNN as CNN
from .model import summary as summary
from .parallel import joined as joined
from .state import export_state as export_state
from .state import import_state as import_state
from .steps import eval_step as eval_step
from .steps import train_step as train_step
from .train import evaluate as evaluate
from .train import fit as fit
from .train import predict as predict

__all__ = [
    "CNN",
    "computing",
    "environment",
    "eval_step",
    "evaluate",
    "export_state",
    "fit",
    "import_state",
    "joined",
    "load_dataset",
    "predict",
    "read_native",
    "resolve",
    "session",
    "summary",
    "train_step",
    "versions",
    "workload",
    "write_native",
]
