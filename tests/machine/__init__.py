"""What the bench needs of the machine it runs on: a cache, child processes that never outlive it, and Debian's packages unpacked."""

from tests.machine.cache import cache_dir, once
from tests.machine.missing import MissingOnMachine
from tests.machine.process import Server

__all__ = ["MissingOnMachine", "Server", "cache_dir", "once"]
