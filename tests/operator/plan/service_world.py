"""A swarm in memory for the planner of Services: an API server's Tasks, hosts that behave, an operator that may die after any write.

The hosts hand over, crash, fall silent and come back as the task model says. Time moves only when a test says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from moorage_operator.api import Image, Service, Task
from moorage_operator.plan.container_data import DataVersions
from moorage_operator.plan.fleet_view import Fleet, NodeView
from moorage_operator.plan.loss import Fate, Losses, verdict
from moorage_operator.plan.service import plan_service
from moorage_operator.plan.service_plan import Advance, Orphan, ServicePlan, Step, Stop, TaskDraft
from moorage_operator.plan.service_wish import wish_of

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENDED = ("Complete", "Failed", "Rejected", "Orphaned")
CRASH_BUDGET = 5


@dataclass
class Host:
    """`silent_since` is when the operator last heard of it; its containers go on meanwhile."""

    name: str
    uid: str
    availability: str = "Active"
    out_of_service: bool = False
    silent_since: datetime | None = None
    running: set[str] = field(default_factory=set)
    prepared: set[str] = field(default_factory=set)


@dataclass
class World:
    spec: dict[str, Any]
    hosts: dict[str, Host] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    now: datetime = START
    rejects: set[str] = field(default_factory=set)
    crashes: set[str] = field(default_factory=set)
    finishes: set[str] = field(default_factory=set)
    room: int = 1000
    grace_s: float = 0
    data: DataVersions = field(default_factory=DataVersions)
    image_ready: bool = True
    uids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.spec.setdefault("task", {}).setdefault("image", "registry/app:1")

    # --- the user

    def add_host(self, name: str) -> Host:
        self.hosts[name] = Host(name, f"uid-of-{name}-{next(self.uids)}")
        return self.hosts[name]

    def change(self, **spec: Any) -> None:
        self.spec |= spec

    def release(self, image: str) -> None:
        """A new version. Images in `rejects` cannot be pulled, those in `crashes` end at once, those in `finishes` end with 0."""
        self.spec["task"] = {**self.spec["task"], "image": f"registry/app:{image}"}

    def delete(self, name: str) -> None:
        self.tasks[name]["metadata"].setdefault("deletionTimestamp", _text(self.now))

    # --- the operator

    @property
    def service(self) -> Service:
        return Service.parse({"metadata": {"name": "web", "namespace": "shop", "uid": "service-uid", "generation": 1}, "spec": self.spec})

    @property
    def image(self) -> Image | None:
        reference = self.spec["task"]["image"]
        status = {"digest": f"sha256:{'0' * 64}", "reference": reference} if self.image_ready else {}
        spec = {"registry": {"reference": reference}}
        return Image.parse({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec, "status": status})

    @property
    def version(self) -> str | None:
        return wish_of(self.service, self.image, self.data).version

    def fleet(self) -> Fleet:
        return Fleet.of(
            NodeView(
                name=host.name,
                uid=host.uid,
                ready=host.silent_since is None or (self.now - host.silent_since).total_seconds() <= 15,
                why_not_ready="Silent",
                availability=host.availability,
                out_of_service=host.out_of_service,
            )
            for host in self.hosts.values()
        )

    def losses(self) -> Losses:
        quiet = {host.name: host.silent_since for host in self.hosts.values() if host.silent_since is not None}
        return Losses(
            known=frozenset(self.hosts),
            silent={name: since for name, since in quiet.items() if (self.now - since).total_seconds() > 15},
            given_up=frozenset(host.name for host in self.hosts.values() if host.out_of_service),
        )

    def plan(self, *, backwards: bool = False) -> ServicePlan:
        objects = [Task.parse(task) for task in self.tasks.values()]
        return plan_service(
            self.service,
            reversed(objects) if backwards else objects,
            self.fleet(),
            self.losses(),
            image=self.image,
            data=self.data,
            now=self.now,
        )

    def operate(self, *, writes: int | None = None) -> ServicePlan:
        """One reconcile; with `writes` the operator dies after so many of them."""
        plan = self.plan()
        for step in itertools.islice(plan.steps(), writes):
            self.write(step)
        self._release_finalizers()
        return plan

    def write(self, step: Step) -> None:
        if isinstance(step, TaskDraft):
            self._create(step)
        elif isinstance(step, Advance):
            assert self.tasks[step.name]["metadata"]["uid"] == step.uid
            self.tasks[step.name]["spec"]["desiredState"] = "Running"
        elif isinstance(step, Stop):
            self.delete(step.name)
        elif isinstance(step, Orphan):
            self._status(self.tasks[step.name], "Orphaned", message=step.message, ready=False)

    def _create(self, draft: TaskDraft) -> None:
        node = self._place(draft)
        if draft.name in self.tasks or not draft.worth_it(node):
            return
        spec = {
            "service": "web",
            "slot": draft.slot,
            "attempt": draft.attempt,
            "version": draft.version,
            "replaces": draft.replaces,
            "handover": draft.handover,
            "container": dict(draft.container),
            "nodeName": node,
            "desiredState": draft.desired_state,
        }
        meta: dict[str, Any] = {
            "name": draft.name,
            "namespace": "shop",
            "uid": f"task-{next(self.uids)}",
            "creationTimestamp": _text(self.now),
        }
        if draft.needs.home is not None:
            meta["annotations"] = {"moorage.dev/home": draft.needs.home.node}
        task: dict[str, Any] = {"metadata": meta, "spec": {key: value for key, value in spec.items() if value is not None}}
        task["image"] = self.spec["task"]["image"].rpartition(":")[2]
        self.tasks[draft.name] = task
        self._status(task, "Pending" if node is None else "Assigned", ready=False)

    def _place(self, draft: TaskDraft) -> str | None:
        """The emptiest host; the place of the Task that makes way counts as free."""
        here = self._node_of(draft.replaces)
        return self._emptiest(draft.needs.home.node if draft.needs.home else None, free=here, without=draft.leaves)

    def place_pending(self) -> None:
        """What the placement worker does for Tasks that found no node."""
        for task in self.tasks.values():
            if task["status"]["state"] == "Pending" and "deletionTimestamp" not in task["metadata"]:
                node = self._emptiest(task["metadata"].get("annotations", {}).get("moorage.dev/home"))
                if node is not None:
                    task["spec"]["nodeName"] = node
                    self._status(task, "Assigned", ready=False)

    def _emptiest(self, home: str | None, *, free: str | None = None, without: str | None = None) -> str | None:
        fleet = self.fleet().nodes
        able = [node.name for node in fleet.values() if node.ready and node.availability == "Active" and not node.out_of_service]
        if home is not None and home in fleet and not fleet[home].given_up:
            able = [name for name in able if name == home]
        load = {name: sum(task["spec"].get("nodeName") == name for task in self.alive()) for name in able if name != without}
        return min((name for name in load if load[name] < self.room or name == free), key=lambda name: (load[name], name), default=None)

    def _node_of(self, uid: str | None) -> str | None:
        return next((task["spec"].get("nodeName") for task in self.tasks.values() if task["metadata"]["uid"] == uid), None)

    def _release_finalizers(self) -> None:
        """Tasks that never had a host, and those of a host that is lost, need nobody to stop them."""
        rule = wish_of(self.service, self.image, self.data).loss_rule
        for name, task in list(self.tasks.items()):
            if "deletionTimestamp" in task["metadata"]:
                node = task["spec"].get("nodeName")
                if node is None or verdict(node, rule, self.losses(), now=self.now).fate is Fate.LOST:
                    del self.tasks[name]

    # --- the hosts

    def work(self) -> None:
        """Each reachable host does what its document says, once."""
        for host in self.hosts.values():
            if host.silent_since is None:
                self._work_on(host)

    def _work_on(self, host: Host) -> None:
        here = {task["metadata"]["uid"]: task for task in self.tasks.values() if task["spec"].get("nodeName") == host.name}
        leaving = {uid for uid, task in here.items() if "deletionTimestamp" in task["metadata"]}
        document = {uid: task for uid, task in here.items() if uid not in leaving and task["status"]["state"] != "Orphaned"}
        stopping = {uid for uid in leaving & host.running if self._in_grace(here[uid])}
        host.running &= document.keys() | stopping
        for uid in leaving - stopping:
            del self.tasks[here[uid]["metadata"]["name"]]
        for uid, task in sorted(document.items()):
            if task["status"]["state"] not in ENDED and task["spec"].get("replaces") not in stopping:
                self._advance(host, uid, task, document)

    def _in_grace(self, task: dict[str, Any]) -> bool:
        return self.now < datetime.fromisoformat(task["metadata"]["deletionTimestamp"]) + timedelta(seconds=self.grace_s)

    def _advance(self, host: Host, uid: str, task: dict[str, Any], document: dict[str, dict[str, Any]]) -> None:
        state, wants_run = task["status"]["state"], task["spec"]["desiredState"] == "Running"
        if state == "Assigned":
            self._status(task, "Preparing", ready=False)
        elif state == "Preparing" and task["image"] in self.rejects:
            self._status(task, "Rejected", reason="NotFound", message=f"image {task['image']} not found", ready=False)
        elif state == "Preparing" and not wants_run:
            self._status(task, "Ready", ready=False)
        elif (state in ("Preparing", "Ready") and wants_run) or state == "Starting":
            self._start(host, uid, task, document)
        elif state == "Running" and task["image"] in self.crashes:
            self._crash(host, uid, task)
        elif state == "Running" and task["image"] in self.finishes:
            self._finish(host, uid, task)

    def _start(self, host: Host, uid: str, task: dict[str, Any], document: dict[str, dict[str, Any]]) -> None:
        old = task["spec"].get("replaces")
        if old in document and task["spec"]["handover"] == "StopFirst" and document[old]["status"]["state"] not in ENDED:
            host.running.discard(old)
            self._status(document[old], "Complete", reason="Replaced", ready=False)
        host.running.add(uid)
        self._status(task, "Running", ready=True)

    def _crash(self, host: Host, uid: str, task: dict[str, Any]) -> None:
        host.running.discard(uid)
        status = task["status"]
        exits = [{"code": 1, "at": _text(self.now)}, *status.get("lastExits", [])][:10]
        restart = task["spec"]["container"].get("restart", {})
        used, allowed = restart.get("attemptsUsed", 0) + status.get("restarts", 0), restart.get("maxAttempts")
        if restart.get("condition") == "None" or (allowed is not None and used >= allowed):
            self._status(task, "Failed", reason="MaxAttempts" if allowed is not None else "Exited", lastExits=exits, ready=False)
            return
        reason = "CrashLoop" if len(exits) >= CRASH_BUDGET else "CrashLoopBackOff"
        self._status(task, "Starting", reason=reason, restarts=status.get("restarts", 0) + 1, lastExits=exits, ready=False)

    def _finish(self, host: Host, uid: str, task: dict[str, Any]) -> None:
        if task["spec"]["container"].get("restart", {}).get("condition", "Any") == "Any":
            self._crash(host, uid, task)
            return
        host.running.discard(uid)
        self._status(task, "Complete", reason="Exited", ready=False)

    def _status(self, task: dict[str, Any], state: str, *, ready: bool, **fields: Any) -> None:
        before = task.get("status", {})
        conditions = [{"type": "Ready", "status": "True" if ready else "False", "reason": state, "lastTransitionTime": _text(self.now)}]
        if before.get("conditions") and before["conditions"][0]["status"] == conditions[0]["status"]:
            conditions = before["conditions"]
        kept = {key: before[key] for key in ("restarts", "lastExits") if key in before}
        task["status"] = {**kept, "state": state, **fields, "conditions": conditions}

    # --- time and views

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def settle(self, rounds: int = 400, step_s: float = 2) -> None:
        """Until nothing changes any more, not even when time passes."""
        quiet = 0
        for _ in range(rounds):
            before = repr(sorted(self.tasks.items()))
            self.place_pending()
            plan = self.operate()
            self.work()
            steps = [step for step in plan.steps() if not (isinstance(step, TaskDraft) and step.optional)]
            quiet = quiet + 1 if not steps and repr(sorted(self.tasks.items())) == before else 0
            if quiet > 3 and plan.requeue_at is None:
                return
            self.later(step_s if plan.requeue_at is None or quiet == 0 else max(step_s, (plan.requeue_at - self.now).total_seconds()))
        raise AssertionError(f"no rest after {rounds} rounds:\n{self.plan().describe()}\n{self.show()}")

    def alive(self) -> list[dict[str, Any]]:
        """Tasks that are not ended and not being deleted."""
        return [
            task for task in self.tasks.values() if "deletionTimestamp" not in task["metadata"] and task["status"]["state"] not in ENDED
        ]

    def slot(self, slot: str) -> list[dict[str, Any]]:
        return [task for task in self.tasks.values() if task["spec"]["slot"] == slot]

    def slots(self) -> list[str]:
        return sorted({task["spec"]["slot"] for task in self.tasks.values()})

    def running(self, slot: str) -> list[str]:
        """Hosts on which a container of the slot runs, as far as anybody can tell: a host that was given up does not count."""
        rule = wish_of(self.service, self.image, self.data).loss_rule
        lost = {name for name in self.hosts if verdict(name, rule, self.losses(), now=self.now).fate is Fate.LOST}
        uids = {task["metadata"]["uid"] for task in self.slot(slot)}
        return [host.name for host in self.hosts.values() for uid in host.running & uids if host.name not in lost]

    def ready(self, image: str | None = None) -> int:
        return sum(task["status"]["conditions"][0]["status"] == "True" and image in (None, task["image"]) for task in self.alive())

    def show(self) -> str:
        return "\n".join(
            _line(task) for task in sorted(self.tasks.values(), key=lambda task: (task["spec"]["slot"], task["spec"]["attempt"]))
        )


def _line(task: dict[str, Any]) -> str:
    meta, spec, status = task["metadata"], task["spec"], task["status"]
    words = (
        f"{meta['name']} ({meta['uid']}) attempt {spec['attempt']} of {task['image']} on {spec.get('nodeName')}:",
        f"{status['state']} {status.get('reason', '')}, wants {spec['desiredState']}, replaces {spec.get('replaces')}",
        "LEAVING" if "deletionTimestamp" in meta else "",
    )
    return " ".join(words).rstrip()


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
