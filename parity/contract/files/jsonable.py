"""Results as JSON values: a dataclass is its properties and its fields."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 2
"""Of every result that `--json` writes."""


def json_text(result: object) -> str:
    """Return everything about a result as the text of a JSON file."""
    return json.dumps(to_json(result), indent=2, allow_nan=False) + "\n"


def to_json(result: object) -> dict[str, Any]:
    """Return a result as JSON values by its fields and properties; its text is the verdict."""
    return {"schema": SCHEMA, "verdict": str(result), **json_values(result)}


def json_values(value: Any) -> Any:
    """Return evidence as JSON values: null for nan and inf, no fields that a `repr` leaves out."""
    match value:
        case object(to_json=own) | object(_asdict=own):
            return json_values(own())
        case float() if not math.isfinite(value):
            return None
        case np.ndarray() | np.generic():
            return json_values(value.tolist())
        case Path():
            return str(value)
        case dict():
            return {str(key): json_values(item) for key, item in value.items()}
        case list() | tuple():
            return [json_values(item) for item in value]
    if dataclasses.is_dataclass(value):
        names = [name for name, item in vars(type(value)).items() if isinstance(item, property)]
        names += [field.name for field in dataclasses.fields(value) if field.repr]
        return {name: json_values(getattr(value, name)) for name in names}
    return value
