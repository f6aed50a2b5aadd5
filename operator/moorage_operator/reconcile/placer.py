"""The one place where tasks get nodes, for all Services: in batches, and what was promised counts until its Task is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from moorage_operator.kube.clock import Clock
from moorage_operator.plan.fleet_view_cache import FleetView
from moorage_operator.plan.placement import place_all
from moorage_operator.plan.placement_needs import TaskNeeds
from moorage_operator.plan.placement_outcome import Placement, Unplaceable

Outcome = Placement | Unplaceable


class _Request(NamedTuple):
    needs: Sequence[TaskNeeds]
    answer: asyncio.Future[list[Outcome]]


class Placer:
    """`view` is kept current by others. What reconcilers ask in one turn of the loop is placed together, so their order does not count."""

    def __init__(self, view: FleetView, *, clock: Clock) -> None:
        self.view = view
        self._clock = clock
        self._waiting: list[_Request] = []

    async def place(self, needs: Sequence[TaskNeeds]) -> list[Outcome]:
        """A node for each task, or why there is none. A placement that is not written after all is to be given back with `forget`."""
        if not needs:
            return []
        loop = asyncio.get_running_loop()
        request = _Request(needs, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._place_waiting)
        self._waiting.append(request)
        return await request.answer

    def forget(self, needs: TaskNeeds) -> None:
        """The write failed: the place is free again."""
        self.view.forget(needs.demand.service.namespace, needs.name)

    def _place_waiting(self) -> None:
        requests, self._waiting = self._waiting, []
        every = [each for request in requests for each in request.needs]
        try:
            outcomes = place_all(every, self.view.fleet(), now=self._clock.now())
        except Exception as error:
            for request in requests:
                if not request.answer.done():
                    request.answer.set_exception(error)
            return
        self._assume(every, outcomes)
        for request in requests:
            mine, outcomes = outcomes[: len(request.needs)], outcomes[len(request.needs) :]
            if not request.answer.done():
                request.answer.set_result(mine)

    def _assume(self, needs: Sequence[TaskNeeds], outcomes: Sequence[Outcome]) -> None:
        for each, outcome in zip(needs, outcomes, strict=True):
            if isinstance(outcome, Placement):
                self.view.assume(each, outcome.node)
