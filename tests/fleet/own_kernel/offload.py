"""Turns offloading off on a link: `python -I -S offload.py LINK`. A user-mode host's raw socket wants whole frames with real checksums.

Standard library only; run in the link's network namespace. ethtool(8) does the same.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import sys

SIOCETHTOOL = 0x8946
# include/uapi/linux/ethtool.h
SET_TX_CHECKSUMS, SET_SCATTER_GATHER, SET_TSO, SET_GSO, SET_GRO = 0x17, 0x19, 0x1F, 0x24, 0x2C


def main() -> None:
    link = sys.argv[1].encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anchor:
        for command in (SET_TSO, SET_GSO, SET_GRO, SET_TX_CHECKSUMS, SET_SCATTER_GATHER):
            value = ctypes.create_string_buffer(struct.pack("II", command, 0), 8)
            request = struct.pack("16sP8x", link, ctypes.addressof(value))
            fcntl.ioctl(anchor, SIOCETHTOOL, request)


if __name__ == "__main__":
    main()
