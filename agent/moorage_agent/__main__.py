"""The agent's verbs. This file imports nothing up front: `dial` runs once per SSH connection and must be quick.

It is also, byte for byte, the `__main__.py` at the root of the archive a host unpacks: `python3 -I -S -E <directory> <verb>`.
"""

from __future__ import annotations

import os
import sys

USAGE = """usage: python3 -I -S -E <directory of the agent> <verb>

  dial                        carry stdin and stdout to the daemon, starting it if needed (what SSH runs)
  serve                       be the daemon
  plan NODESPEC.json          print the steps this node would take for a document, and take none
  report                      print what this node runs, as JSON
  ps                          print what this node runs, for people
  logs TASK [-f] [--tail N] [--since SECONDS]
  doctor                      say what this host lacks
  uninstall --yes             stop and remove everything of Moorage's but the volumes

  --root DIR --run DIR        other directories than /var/lib/moorage and /run/moorage"""


def main() -> None:
    """Do what the command line says and end the process with its exit code."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    if arguments == ["dial"]:
        from moorage_agent.dial import dial
        from moorage_agent.paths import Paths

        return dial(Paths())
    from moorage_agent.verbs import run

    return run(arguments, usage=USAGE)


if __name__ == "__main__":
    if not __package__ and os.path.basename(sys.path[0]) == "moorage_agent":  # run as `python3 <...>/moorage_agent`
        sys.path[0] = os.path.dirname(sys.path[0])
    main()
