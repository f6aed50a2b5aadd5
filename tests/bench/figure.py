"""One measured thing, printed as one JSON line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from statistics import median
from typing import Any


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(percent / 100 * len(ordered) + 0.5) - 1))]


def figure(name: str, ours: Sequence[float], unit: str, peer: Sequence[float] = (), **more: Any) -> dict[str, Any]:
    """Medians of both; `ratio` is ours by the peer's, measured in the same run. The machine's load goes with it."""
    mine, theirs = median(ours), median(peer) if peer else None
    line: dict[str, Any] = {"figure": name, "ours": round(mine, 4), "unit": unit, "n": len(ours)}
    if theirs is not None:
        line |= {"peer": round(theirs, 4), "ratio": round(mine / theirs, 4), "peer_n": len(peer)}
    if len(ours) > 1:
        line |= {"p99": round(percentile(ours, 99), 4), "min": round(min(ours), 4)}
    return {**line, **more, "load": round(os.getloadavg()[0], 2)}


def show(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
