"""Rules by the name of what they are for, as an operation: those of causes, and of mistakes."""

from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


class Rules(dict[str, list[R]]):
    """The rules for each name; a function becomes one by a decorator."""

    def of(self, *names: str) -> Callable[[R], R]:
        """Enter a rule for these names."""

        def enter(rule: R) -> R:
            for name in names:
                self.setdefault(name, []).append(rule)
            return rule

        return enter
