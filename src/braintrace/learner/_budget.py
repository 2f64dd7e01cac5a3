"""Windows within a number of bytes, and what to do where there is none."""

import functools
from typing import Any

from ..cell._arguments import checked_window
from ..core._domains import flag, whole
from ..core._errors import UsageError
from ..core.analysis import CellGraph, size
from ..core.engine import Division, Rule
from ..core.engine._memory import MemoryPlan, memory_plan
from ..core.engine._sequence import default_window
from ..core.traces import Factored, PerParameter, Presynaptic

# Algorithms that are proposed instead, with the carrier that rules their memory; from the closest
# to the gradient on.
_PROPOSED = {"d_rtrl": PerParameter(), "pp_prop": Factored(0.9, 0.9), "ottt": Presynaptic((0.9,))}


class Budget:
    """The most bytes that a learner's sequences may need; None for no limit. Decides the window of
    every call. With `division` the bytes are those of one device.
    """

    def __init__(
        self, graph: CellGraph, rule: Rule, limit: int | None, division: Division | None = None
    ):
        if limit is not None:
            limit = whole("memory_budget", limit, "a number of bytes, or None")
        self.graph, self.rule, self.limit, self.division = graph, rule, limit, division
        self._known = functools.cache(self.plan)
        self.window(1, 1)

    def window(
        self, steps: int, window: int | None, return_state: bool = True, traces: bool = True
    ) -> int:
        """The window of a call: the one asked for, or else the default one, halved until it fits.

        Raises:
            UsageError: where that needs more than the limit.
        """
        if self.limit is None:
            return self._wanted(steps, window)
        plan = self._known(steps, window, return_state, traces)
        if plan.total > self.limit:
            raise self._too_much(plan, return_state, traces)
        return plan.window

    def plan(
        self, steps: int, window: int | None, return_state: bool = True, traces: bool = True
    ) -> MemoryPlan:
        """The plan of a call, whether it fits or not."""
        steps, window = whole("number of steps", steps), checked_window(window)
        options = flag("return_state", return_state), flag("traces", traces), self.division
        wanted = self._wanted(steps, window)
        if window is None:
            return self._fitted(self.rule, steps, wanted, *options)
        return memory_plan(self.graph, self.rule, steps, wanted, *options)

    def _wanted(self, steps: int, window: int | None) -> int:
        if window is not None:
            return min(window, steps)
        return default_window(self.graph, self.rule, steps)

    def _fitted(self, rule: Rule, steps: int, window: int, *options: Any) -> MemoryPlan:
        """The plan of a window that is halved until it fits, if it ever does."""
        plan = memory_plan(self.graph, rule, steps, window, *options)
        while self.limit is not None and plan.total > self.limit and plan.window > 1:
            plan = memory_plan(self.graph, rule, steps, plan.window // 2, *options)
        return plan

    def _too_much(self, plan: MemoryPlan, *options: Any) -> UsageError:
        assert self.limit is not None
        rules = {"": self.rule}
        for name, carrier in _PROPOSED.items():
            if type(carrier) is not type(self.rule.carrier):
                rules[f"{name} with "] = Rule(name, carrier)
        how = *options, self.division
        fitted = lambda rule: self._fitted(rule, plan.steps, plan.window, *how)
        proposals = [
            f"{name}window={other.window}, which needs {size(other.total)}"
            for name, other in zip(rules, map(fitted, rules.values()), strict=True)
            if other.total <= self.limit
        ]
        none = "a smaller batch or model: no window and no algorithm fits"
        return UsageError(
            f"{plan.algorithm} needs more memory than the budget.",
            got=f"{size(plan.total)} for {plan.window} of {plan.steps} steps at once, "
            f"{size(plan.traces)} of it traces",
            expected=f"at most {size(self.limit)} (memory_budget)"
            + " on each device" * (plan.devices > 1),
            do=f"use {'; or '.join(proposals) or none}",
        )
