"""What the daemon has in memory. All of it is rebuilt from disk and from what the runtime observes whenever a daemon starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from moorage_agent.health import Health, check_of
from moorage_agent.protocol import Healthcheck, ImageSpec, NodeSpec, TaskSpec
from moorage_agent.runtime.launch import Bind, Launch
from moorage_agent.steps import cut_off
from moorage_agent.task_state import ImageView, Moment, Record, Seen, TaskView, Trouble
from moorage_agent.values import ValueStore, keys_of


@dataclass
class TaskState:
    """One task. `keys`: of the values its container needs. `launch` is what Prepare made for the next start; `prepared` outlives it.

    `unsaved`: the disk lacks the record.
    """

    uid: str
    spec: TaskSpec | None = None
    keys: tuple[str, ...] = ()
    wanted: bool = False
    record: Record = field(default_factory=Record)
    seen: Seen | None = None
    prepared: bool = False
    launch: Launch | None = None
    trouble: Trouble | None = None
    health: Health | None = None
    busy: bool = False
    unsaved: bool = False


class World:
    """Tasks, images and the document in force. Looks nothing up on the host; whoever learns something writes it here."""

    def __init__(self, values: ValueStore) -> None:
        self.values = values
        self.value_errors: dict[str, str] = {}
        self.tasks: dict[str, TaskState] = {}
        self.images: dict[str, ImageView] = {}
        self.document: NodeSpec | None = None
        self.document_hash = ""
        self.heard_at: float | None = None
        self.host_stops = False
        self._users: dict[str, set[str]] = {}
        self._heirs: dict[str, set[str]] = {}
        self._value_users: dict[str, set[str]] = {}

    def adopt_document(self, document: NodeSpec, digest: str) -> set[str]:
        """Make this the document in force. Returns the uids of tasks that are new, gone or changed."""
        wished = {task.uid: task for task in document.tasks}
        touched = {uid for uid, state in self.tasks.items() if state.wanted != (uid in wished)}
        for uid in touched - wished.keys():
            self.tasks[uid].wanted = False
        for uid, spec in wished.items():
            if self._adopt_task(uid, spec):
                touched.add(uid)
        self.document, self.document_hash = document, digest
        return touched

    def _adopt_task(self, uid: str, spec: TaskSpec) -> bool:
        state = self.tasks.get(uid)
        if state is None:
            state = self.tasks[uid] = TaskState(uid)
        changed = state.spec != spec or not state.wanted
        state.wanted = True
        if changed:
            self.remember(state, spec)
        return changed

    def remember(self, state: TaskState, spec: TaskSpec) -> None:
        """Give a task its spec, and index what others find it by."""
        self._unindex(state)
        state.spec, state.keys = spec, keys_of(spec)
        self.tasks[state.uid] = state
        self._users.setdefault(spec.image.digest, set()).add(state.uid)
        if spec.replaces:
            self._heirs.setdefault(spec.replaces, set()).add(state.uid)
        for key in state.keys:
            self._value_users.setdefault(key, set()).add(state.uid)

    def forget(self, uid: str) -> None:
        """The task is gone from the host. One the document wants again meanwhile begins anew."""
        state = self.tasks.pop(uid)
        self._unindex(state)
        if state.wanted and state.spec is not None:
            self.remember(TaskState(uid, wanted=True), state.spec)

    def _unindex(self, state: TaskState) -> None:
        """Take the task out of every index; an index without tasks is not kept."""
        if state.spec is None:
            return
        entries = [(self._users, state.spec.image.digest), (self._heirs, state.spec.replaces or "")]
        for index, key in (*entries, *((self._value_users, key) for key in state.keys)):
            index.get(key, set()).discard(state.uid)
            if not index.get(key):
                index.pop(key, None)

    def users_of(self, digest: str) -> set[str]:
        """Tasks that run the image."""
        return self._users.get(digest, set())

    def users_of_value(self, key: str) -> set[str]:
        """Tasks whose container needs the value."""
        return self._value_users.get(key, set())

    def relatives(self, uid: str) -> set[str]:
        """Tasks this one makes way for or waits for, directly or through others."""
        return {*self._ancestors(uid), *self._descendants(uid)}

    def view(self, uid: str, now: Moment) -> TaskView:
        """All that decides about one task, frozen."""
        state = self.tasks[uid]
        spec = state.spec
        image = self.images.get(spec.image.digest, ImageView()) if spec else ImageView()
        missing = self.values.missing(state.keys) if state.wanted and state.keys else ()
        return TaskView(
            uid=uid,
            wanted=state.wanted,
            spec=spec,
            record=state.record,
            seen=state.seen,
            image=image,
            missing=missing,
            missing_why=next((self.value_errors[key] for key in missing if key in self.value_errors), ""),
            prepared=state.prepared,
            trouble=state.trouble,
            healthy=state.health.healthy if state.health else None,
            healthcheck=self.healthcheck(state),
            heard_at=self.heard_at,
            way_blocked=self._way_blocked(state),
            heir_ready=uid in self._heirs and any(self._may_take_over(heir, now) for heir in self._descendants(uid)),
            host_stops=self.host_stops,
            busy=state.busy,
        )

    def healthcheck(self, state: TaskState) -> Healthcheck | None:
        return check_of(state.spec, self.images.get(state.spec.image.digest, ImageView()).config) if state.spec else None

    def wished_images(self) -> Iterator[ImageSpec]:
        """The images the document names: of its tasks, and those to hold beforehand."""
        if self.document is not None:
            yield from self.document.images
            yield from (task.image for task in self.document.tasks)

    def images_in_use(self) -> set[str]:
        """Digests no sweep may take: wished, or of a task that still exists."""
        return {image.digest for image in self.wished_images()} | {s.spec.image.digest for s in self.tasks.values() if s.spec}

    def keys_in_use(self) -> set[str]:
        return {key for state in self.tasks.values() for key in state.keys}

    def files_in_use(self) -> set[str]:
        """Paths that starts to come will bind. What runs holds its files without their names."""
        launches = [state.launch for state in self.tasks.values() if state.launch is not None]
        return {mount.source for launch in launches for mount in launch.mounts if isinstance(mount, Bind)}

    def fenced(self) -> Iterable[str]:
        """Tasks that stop when no operator is heard."""
        return [uid for uid, state in self.tasks.items() if state.spec and state.spec.stop_after_s is not None]

    def _ancestors(self, uid: str) -> list[str]:
        found: list[str] = []
        state = self.tasks.get(uid)
        while state and state.spec and state.spec.replaces and state.spec.replaces not in (uid, *found):
            found.append(state.spec.replaces)
            state = self.tasks.get(state.spec.replaces)
        return found

    def _descendants(self, uid: str) -> list[str]:
        found: list[str] = []
        ahead = [uid]
        while ahead:
            fresh = [heir for heir in self._heirs.get(ahead.pop(), ()) if heir != uid and heir not in found]
            found += fresh
            ahead += fresh
        return found

    def _way_blocked(self, state: TaskState) -> bool:
        """Also by an heir that is on its way out: a store restored from a snapshot brings back the task it replaced."""
        before = self._ancestors(state.uid) if state.spec and takes_turns(state.spec) else []
        after = [heir for heir in self._descendants(state.uid) if self._leaves_a_turn(heir)] if state.uid in self._heirs else []
        return any(map(self._may_run, [*before, *after]))

    def _leaves_a_turn(self, uid: str) -> bool:
        heir = self.tasks.get(uid)
        return heir is not None and heir.spec is not None and not heir.wanted and takes_turns(heir.spec)

    def _may_run(self, uid: str) -> bool:
        state = self.tasks.get(uid)
        return state is not None and (state.busy or (state.seen is not None and state.seen.exit is None))

    def _may_take_over(self, uid: str, now: Moment) -> bool:
        """True when the old one should stop for this task: it has everything it needs to start, or started before."""
        heir = self.tasks.get(uid)
        if heir is None or heir.spec is None or not heir.wanted or heir.spec.desired_state != "Running" or not takes_turns(heir.spec):
            return False
        if heir.record.run > 0:
            return True
        alone = TaskView(uid=uid, wanted=True, spec=heir.spec, heard_at=self.heard_at)
        return heir.prepared and heir.trouble is None and heir.record.end is None and not cut_off(alone, now)


def takes_turns(spec: TaskSpec) -> bool:
    """True when the task cannot run beside the one it replaces: it was told so, or both want the host's ports."""
    return spec.handover == "StopFirst" or (spec.container.network == "Host" and bool(spec.container.ports))
