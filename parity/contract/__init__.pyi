from .backend import Backend as Backend
from .data.datasets import Dataset as Dataset
from .data.datasets import Split as Split
from .errors import CnnParityError as CnnParityError
from .processes import Processes as Processes
from .recipe import Recipe as Recipe
from .run.checkpoint import Checkpoint as Checkpoint
from .run.checkpoint import read_checkpoint as read_checkpoint
from .run.checkpoint import write_checkpoint as write_checkpoint
from .run.history import Evaluation as Evaluation
from .run.history import History as History
from .run.observers import SILENT as SILENT
from .run.observers import Observer as Observer
from .state import State as State
from .state import initial_state as initial_state

__all__ = [
    "SILENT",
    "Backend",
    "Checkpoint",
    "CnnParityError",
    "Dataset",
    "Evaluation",
    "History",
    "Observer",
    "Processes",
    "Recipe",
    "Split",
    "State",
    "initial_state",
    "read_checkpoint",
    "write_checkpoint",
]
