"""Results as JSON values."""

import math
from typing import Any


def json_values(value: Any) -> Any:
    """Return evidence as JSON values: a number that is not finite becomes null."""
    match value:
        case dict():
            return {key: json_values(item) for key, item in value.items()}
        case list() | tuple():
            return [json_values(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value
