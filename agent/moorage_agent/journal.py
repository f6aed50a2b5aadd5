"""The log: one line per event, a constant sentence and its fields. It goes to stderr; whoever starts the daemon says where that is."""

from __future__ import annotations

import logging
import os
import sys
import time

KEPT_BYTES = 16 * 1024 * 1024


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_quoted(value)}" for name, value in getattr(record, "fields", {}).items())
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"{stamp}.{int(record.msecs):03d}Z {record.levelname.lower()} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def write_log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.INFO)


def rotate(path: str) -> None:
    """Begin a new file when stderr is `path` and has grown large; one older file is kept."""
    try:
        ours, named = os.fstat(2), os.stat(path)
        if (ours.st_ino, ours.st_dev) != (named.st_ino, named.st_dev) or named.st_size < KEPT_BYTES:
            return
        os.rename(path, f"{path}.1")
        fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    os.dup2(fresh, 1)
    os.dup2(fresh, 2)
    os.close(fresh)


def _quoted(value: object) -> str:
    text = str(value).replace("\n", "\\n")
    return f'"{text}"' if " " in text or not text else text
