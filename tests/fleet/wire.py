"""A bad cable: carries frames between two links with delay, loss and a limited rate.

Stands in for the kernel's netem, which not every kernel has.

Run in the bridge's network namespace as `python -I -S wire.py INNER OUTER CONDITIONS`; INNER is the host's link, OUTER the bridge's,
CONDITIONS a JSON object (see Conditions). Standard library only.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import select
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_VNET_HDR = 15  # frames come with what offloading left to do (checksums, segments), and are accepted with it
PACKET_IGNORE_OUTGOING = 23
LARGEST = 80_000


@dataclass(frozen=True)
class Conditions:
    """Delay in seconds, rate in bytes per second, losses from 0 to 1, per direction. The host hears what comes in."""

    delay_s: float = 0.0
    loss_in: float = 0.0
    loss_out: float = 0.0
    rate: float | None = None


def main() -> None:
    inner, outer = (open_link(name) for name in sys.argv[1:3])
    print("ready", flush=True)
    carry(inner, outer, Conditions(**json.loads(sys.argv[3])), random.Random(0))


def open_link(name: str) -> socket.socket:
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    link.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    link.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    link.bind((name, ETH_P_ALL))
    link.setblocking(False)
    return link


def carry(inner: socket.socket, outer: socket.socket, conditions: Conditions, chance: random.Random) -> None:
    ways = {inner: (outer, conditions.loss_out), outer: (inner, conditions.loss_in)}
    idle = dict.fromkeys(ways, 0.0)
    waiting: list[tuple[float, int, socket.socket, bytes]] = []
    order = itertools.count()
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for source in select.select(list(ways), [], [], timeout)[0]:
            target, loss = ways[source]
            for frame in received(source):
                if chance.random() < loss:
                    continue
                idle[source] = max(idle[source], time.monotonic()) + (len(frame) / conditions.rate if conditions.rate else 0.0)
                heapq.heappush(waiting, (idle[source] + conditions.delay_s, next(order), target, frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(waiting)
            send(target, frame)


def received(source: socket.socket, most: int = 64) -> list[bytes]:
    frames: list[bytes] = []
    with suppress(OSError):  # nothing more; or the link went down, which loses what was on it
        while len(frames) < most:
            frames.append(source.recv(LARGEST))
    return frames


def send(target: socket.socket, frame: bytes) -> None:
    with suppress(OSError):  # its queue is full or it is down: the frame is lost, as on any cable
        target.send(frame)


if __name__ == "__main__":
    main()
