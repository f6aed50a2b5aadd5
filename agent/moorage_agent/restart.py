"""What the end of a run means: the restart policy, its back-off, and the crash budget. Pure: time and chance are arguments."""

from __future__ import annotations

import dataclasses

from moorage_agent.protocol import Exit, Restart
from moorage_agent.task_state import DISCONNECTED, HOST_REBOOTED, REMOVED, REPLACED, UNHEALTHY, End, Moment, Record, Trouble

STABLE_S = 60.0
JITTER = 0.2
CRASH_BUDGET = 5
CRASH_WINDOW_S = 300.0
KEPT_EXITS = 10
SHORTEST_DELAY_S = 0.1

_NOT_COUNTED = (HOST_REBOOTED, DISCONNECTED, REMOVED, REPLACED)


def after_exit(record: Record, ended: Exit, *, run: int, policy: Restart, now: Moment, chance: float) -> Record:
    """The record with the end of `run` in it, and what follows: another start at `restart_at`, or the task's last state.

    `chance` in [0, 1) spreads restarts by ±20 %.
    """
    stable = ended.started_at is not None and ended.at - ended.started_at >= STABLE_S
    counted = ended.reason not in _NOT_COUNTED
    streak = (0 if stable else record.streak) + (1 if counted else 0)
    end = _verdict(record, ended, policy)
    pause = delay_s(policy, streak, chance=chance) if counted else 0.0
    return dataclasses.replace(
        record,
        run=run,
        noted=run,
        began=record.began or ended.started_at is not None,
        streak=streak,
        attempts=record.attempts + (1 if counted else 0),
        restarts=record.restarts + (0 if end else 1),
        restart_at=now.boot + pause,
        boot_id=now.boot_id,
        exits=_kept((*record.exits, ended), policy),
        message=_told(ended, pause=None if end else pause),
        hindered="",
        stop=None,
        end=end,
    )


def after_trouble(record: Record, trouble: Trouble, *, policy: Restart, now: Moment, chance: float) -> Record:
    """The record of a task whose program was not reached, for what may pass: it waits as after an exit, and no attempt is used up.

    It counts for the crash budget: on another node the task may do better. A run that was begun is over: what is left has its number.
    """
    streak, tried = record.streak + 1, Exit(trouble.exit_code, now.wall, reason=trouble.code)
    return dataclasses.replace(
        record,
        noted=record.run,
        streak=streak,
        restart_at=now.boot + delay_s(policy, streak, chance=chance),
        boot_id=now.boot_id,
        exits=_kept((*record.exits, tried), policy),
        message=trouble.message,
        hindered=trouble.code,
        stop=None,
    )


def _kept(exits: tuple[Exit, ...], policy: Restart) -> tuple[Exit, ...]:
    return exits[-max(KEPT_EXITS, (policy.max_attempts or 0) + 1) :]


def delay_s(policy: Restart, streak: int, *, chance: float) -> float:
    """Seconds before the next start: doubling with every exit in a row, at most max_delay_s, ±20 %."""
    if streak <= 1 and policy.delay_s == 0:
        return 0.0
    doubled = max(policy.delay_s, SHORTEST_DELAY_S) * 2.0 ** min(max(streak, 1) - 1, 32)
    return min(doubled, policy.max_delay_s) * (1 + JITTER * (2 * chance - 1))


def crash_looping(record: Record) -> bool:
    """True when the last five counted exits fell into five minutes."""
    counted = [ended.at for ended in record.exits if ended.reason not in _NOT_COUNTED][-CRASH_BUDGET:]
    return len(counted) == CRASH_BUDGET and 0 <= counted[-1] - counted[0] <= CRASH_WINDOW_S  # less than 0: the clock was set back


def failed(ended: Exit) -> bool:
    return ended.code != 0 or ended.reason == UNHEALTHY


def _verdict(record: Record, ended: Exit, policy: Restart) -> End | None:
    if ended.reason == REPLACED:
        return End("Complete", REPLACED, "made way for the task that replaces it")
    if ended.reason == REMOVED or (ended.reason in (HOST_REBOOTED, DISCONNECTED) and policy.condition != "None"):
        return None
    if policy.condition == "None" or (policy.condition == "OnFailure" and not failed(ended)):
        return End("Failed" if failed(ended) else "Complete", ended.reason or "Exited", _told(ended, pause=None))
    if policy.max_attempts is not None and _restarts_used(record, ended, policy) >= policy.max_attempts:
        used = f"all {policy.max_attempts} restart attempts are used up; {_told(ended, pause=None)}"
        return End("Failed", "MaxAttempts", used)
    return None


def _restarts_used(record: Record, ended: Exit, policy: Restart) -> int:
    """Restarts so far, each the answer to one counted exit before this one; with a window, only those in it."""
    if policy.window_s is None:
        return policy.attempts_used + record.attempts
    since = ended.at - policy.window_s
    return policy.attempts_used + sum(1 for one in record.exits if since < one.at <= ended.at and one.reason not in _NOT_COUNTED)


def _told(ended: Exit, *, pause: float | None) -> str:
    """The exit in words, for people."""
    lasted = f" after {ended.at - ended.started_at:.1f} s" if ended.started_at is not None and ended.at > ended.started_at else ""
    killed = ", out of memory" if ended.oom_killed else ""
    why = f" ({ended.reason})" if ended.reason else ""
    what = "ended with an unknown exit code" if ended.code is None else f"exited with code {ended.code}"
    follows = "" if pause is None else f"; starts again after {pause:.1f} s"
    return f"{what}{lasted}{killed}{why}{follows}"
