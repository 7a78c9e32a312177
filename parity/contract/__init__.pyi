from .backend import Backend as Backend
from .checkpoint import Checkpoint as Checkpoint
from .checkpoint import read_checkpoint as read_checkpoint
from .checkpoint import write_checkpoint as write_checkpoint
from .datasets import Dataset as Dataset
from .errors import CnnParityError as CnnParityError
from .history import Evaluation as Evaluation
from .history import History as History
from .observers import Observer as Observer
from .parameters import State as State
from .parameters import initial_state as initial_state
from .recipe import Recipe as Recipe

__all__ = [
    "Backend",
    "Checkpoint",
    "CnnParityError",
    "Dataset",
    "Evaluation",
    "History",
    "Observer",
    "Recipe",
    "State",
    "initial_state",
    "read_checkpoint",
    "write_checkpoint",
]
