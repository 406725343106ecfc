"""What several expressions may cost together: each has its own limit, and all of them one more.

Source: k8s.io/apiserver/pkg/apis/cel
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podwire.apiserver.cel.check import PER_CALL_LIMIT, Program
from podwire.apiserver.cel.values import CostExceeded, Fault

OF_CONDITIONS = 2_500_000  # the match conditions of a webhook or a policy
OF_BINDING = 10_000_000  # what a request is put to by one binding, with one object of parameters


class OutOfBudget(Fault):
    """Expressions that cost too much together: none is evaluated any more."""

    def __init__(self) -> None:
        super().__init__("validation failed due to running out of cost budget, no further validation rules will be run")


class Budget:
    """What is left."""

    def __init__(self, limit: int = OF_BINDING) -> None:
        self._left = limit

    def evaluate(self, program: Program, values: Mapping[str, Any]) -> Any:
        """Give the value of an expression. Raises Fault; OutOfBudget when nothing is left."""
        try:
            value, cost = program.evaluate(values)
        except CostExceeded:
            self._spend(PER_CALL_LIMIT)
            raise
        self._spend(cost)
        return value

    def _spend(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise OutOfBudget
