from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from moorage_agent.protocol import Container, DataFile, EnvVar, Healthcheck, Mount, Restart, TaskSpec

from tests.root.daemon.agent_host import AgentHost, Operator
from tests.root.dead_mount import DeadMount

pytestmark = pytest.mark.root

SLEEP = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")


def alive(pid: int | None) -> bool:
    return pid is not None and os.path.exists(f"/proc/{pid}")


def sleeping(host: AgentHost) -> tuple[Operator, TaskSpec]:
    """A daemon has begun, and runs one task."""
    host.start()
    operator = host.connect()
    task = host.task(operator, *SLEEP)
    operator.push(task)
    operator.wait_state("Running", task)
    return operator, task


def test_the_number_of_containers_is_not_limited_by_descriptors(host: AgentHost) -> None:
    """A container gets the usual limits all the same."""
    host.start()
    operator = host.connect()
    task = host.task(operator, "sh", "-c", f"ulimit -n; {SLEEP[2]}")
    operator.push(task)
    operator.wait_state("Running", task)
    for pid in (host.pid, host.zygote_pid):
        soft, hard = descriptor_limits(pid)
        assert soft == hard
    eventually(lambda: "1024" in host.lines(task.uid))


def descriptor_limits(pid: int) -> tuple[str, str]:
    lines = Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()
    return tuple(next(line for line in lines if line.startswith("Max open files")).split()[3:5])  # type: ignore[return-value]


def test_a_container_runs_from_a_document_and_goes_with_it(host: AgentHost) -> None:
    host.start()
    operator = host.connect()
    task = host.task(operator, "sh", "-c", f"echo hello from $HOSTNAME; {SLEEP[2]}")
    operator.push(task)
    operator.wait_state("Running", task)
    pid = operator.tasks[task.uid].pid
    assert alive(pid)
    eventually(lambda: "hello from web-1-" in host.lines(task.uid))
    operator.push()
    operator.wait("removal", lambda: task.uid in operator.removed)
    assert not alive(pid)
    assert not os.path.exists(host.paths.task(task.uid))


def test_the_same_document_again_changes_nothing(host: AgentHost) -> None:
    host.start()
    operator = host.connect()
    tasks = [host.task(operator, *SLEEP) for _ in range(3)]
    operator.push(*tasks)
    operator.wait_state("Running", *tasks)
    pids = {uid: report.pid for uid, report in operator.tasks.items()}
    operator.push(*reversed(tasks))
    operator.push(*tasks)
    host.kill()
    host.start()
    operator = host.connect()
    operator.push(*tasks)
    operator.wait_state("Running", *tasks)
    assert {uid: report.pid for uid, report in operator.tasks.items()} == pids
    assert all(report.restarts == 0 for report in operator.tasks.values())


def test_the_daemon_stays_small_and_loads_no_tls(host: AgentHost) -> None:
    host.start()
    operator = host.connect()
    tasks = [host.task(operator, *SLEEP) for _ in range(5)]
    operator.push(*tasks)
    operator.wait_state("Running", *tasks)
    assert "libssl" not in Path(f"/proc/{host.pid}/maps").read_text()
    rollup = Path(f"/proc/{host.pid}/smaps_rollup").read_text()
    (pss,) = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")]
    assert pss < 30 * 1024


def test_thirty_tasks_start_and_stop(host: AgentHost) -> None:
    host.start()
    operator = host.connect()
    tasks = [host.task(operator, *SLEEP) for _ in range(30)]
    operator.push(*tasks)
    operator.wait_state("Running", *tasks)
    assert len({report.pid for report in operator.tasks.values()}) == 30
    operator.push()
    operator.wait("all gone", lambda: len(operator.removed) == 30)


def test_exits_are_noted_and_restarted_while_no_operator_is_there(host: AgentHost) -> None:
    host.start()
    operator = host.connect()
    task = host.task(operator, container=Container(command=("sh", "-c", "exit 7"), restart=Restart(delay_s=0.2, max_attempts=3)))
    operator.push(task)
    operator.close()
    time.sleep(3)
    operator = host.connect()
    operator.wait_state("Failed", task)
    report = operator.tasks[task.uid]
    assert (report.restarts, report.exit_code, report.reason) == (3, 7, "MaxAttempts")
    assert [ended.code for ended in report.last_exits] == [7, 7, 7, 7]


def test_an_exit_while_the_daemon_was_dead_is_noted_once_by_the_next(host: AgentHost) -> None:
    operator, task = sleeping(host)
    pid = operator.tasks[task.uid].pid
    assert pid is not None
    host.kill()
    os.kill(pid, signal.SIGKILL)
    host.start()
    operator = host.connect()
    operator.wait(
        "restart", lambda: operator.tasks.get(task.uid) and operator.tasks[task.uid].restarts == 1 and operator.state(task) == "Running"
    )
    assert [ended.code for ended in operator.tasks[task.uid].last_exits] == [137]


@pytest.mark.parametrize("seed", range(3))
def test_a_daemon_that_is_killed_again_and_again_reaches_the_wish(host: AgentHost, seed: int) -> None:
    chance = random.Random(seed)
    host.start()
    operator = host.connect()
    tasks = [host.task(operator, *SLEEP, grace_s=1.0) for _ in range(8)]
    wished = tasks
    for _ in range(8):
        wished = chance.sample(tasks, chance.randrange(2, 8))
        operator.push(*wished)
        time.sleep(chance.choice([0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.3]))
        operator.close()
        host.kill()
        host.start()
        operator = host.connect()
    operator.wait_state("Running", *wished)
    operator.wait("nothing else", lambda: set(operator.tasks) == {task.uid for task in wished})
    operator.wait("their containers alone", lambda: host.first_processes() == {report.pid for report in operator.tasks.values()})
    assert set(os.listdir(host.paths.tasks)) == {task.uid for task in wished}
    for report in operator.tasks.values():  # one that was wished again while it was being stopped for good has such an exit
        assert [ended for ended in report.last_exits if ended.reason != "Removed"] == []
        assert report.restarts == len(report.last_exits)


def test_after_a_reboot_the_stored_document_runs_again_without_an_operator(host: AgentHost) -> None:
    operator, task = sleeping(host)
    reboot(host, operator)
    host.start()
    operator = host.connect()
    operator.wait_state("Running", task)
    report = operator.tasks[task.uid]
    assert report.restarts == 1
    assert (report.last_exits[-1].reason, report.last_exits[-1].code) == ("HostRebooted", None)


def test_after_a_reboot_a_task_with_secrets_waits_for_the_operator(host: AgentHost) -> None:
    host.start()
    operator = host.connect()
    key = "secret/default/db/password/0123456789abcdef"
    operator.values[key] = b"hunter2"
    file = DataFile("/run/secrets/password", key, secret=True, mode=0o400)
    script = "echo $(cat /run/secrets/password)/$PASSWORD; stat -c %a /run/secrets/password; exec sleep 1000"
    task = host.task(
        operator, container=Container(command=("sh", "-c", script), env=(EnvVar("PASSWORD", key=key),), files=(file,), stop_grace_s=0.1)
    )
    operator.push(task)
    operator.wait_state("Running", task)
    eventually(lambda: host.lines(task.uid).endswith(" 400\n"))
    assert "hunter2/hunter2" in host.lines(task.uid)
    os.remove(next(Path(host.paths.task(task.uid), "log").iterdir()))
    assert b"hunter2" not in everything_on_disk(host)
    reboot(host, operator)
    host.start()
    operator = host.connect()
    operator.values.clear()
    operator.wait("it says why", lambda: operator.tasks.get(task.uid) and operator.tasks[task.uid].reason == "WaitingForSecrets")
    assert "secret/default/db/password" in operator.tasks[task.uid].message
    operator.send({"type": "value", "key": key}, b"hunter2")
    operator.wait_state("Running", task)


def test_a_secret_the_host_has_no_room_for_is_told_at_its_task(host: AgentHost) -> None:
    host.start()
    operator = host.connect()
    key = "secret/default/db/certificates/0123456789abcdef"
    operator.values[key] = b"c" * 100_000
    filler = Path(host.paths.secrets, "filler")
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass
    file_of_it = DataFile("/run/secrets/certificates", key, secret=True, mode=0o400)
    task = host.task(operator, container=Container(command=("sleep", "1000"), files=(file_of_it,), stop_grace_s=0.1))
    operator.push(task)
    operator.wait("it says why", lambda: task.uid in operator.tasks and "No space left" in operator.tasks[task.uid].message)
    assert operator.tasks[task.uid].reason == "WaitingForSecrets"
    assert f"make room in {host.paths.secrets}" in operator.tasks[task.uid].message
    assert os.listdir(f"{host.paths.secrets}/values") == []
    filler.unlink()
    operator.send({"type": "value", "key": key}, operator.values[key])
    operator.wait_state("Running", task)


def test_configs_volumes_and_binds_reach_the_container(host: AgentHost, tmp_path: Path) -> None:
    host.start()
    operator = host.connect()
    key = "config/default/app/app.ini/0123456789abcdef"
    operator.values[key] = b"[app]"
    (tmp_path / "bound").mkdir()
    script = "cat /etc/app.ini > /data/copy; stat -c %u:%g /etc/app.ini >> /data/copy; touch /bound/here; exec sleep 1000"
    task = host.task(
        operator,
        container=Container(
            command=("sh", "-c", script),
            mounts=(Mount("/data", "volume", "default/shop/data-{{.Task.Slot}}"), Mount("/bound", "bind", str(tmp_path / "bound"))),
            files=(DataFile("/etc/app.ini", key, secret=False, uid=7, gid=8),),
            stop_grace_s=0.1,
        ),
    )
    operator.push(task)
    operator.wait_state("Running", task)
    copy = Path(host.paths.volume("default/shop/data-1"), "copy")
    eventually(lambda: copy.exists() and copy.read_text() == "[app]7:8\n")
    eventually((tmp_path / "bound/here").exists)
    operator.push()
    operator.wait("removal", lambda: task.uid in operator.removed)
    assert copy.exists()


def test_a_bind_whose_file_system_is_dead_is_named_and_the_others_go_on(host: AgentHost, tmp_path: Path) -> None:
    dead = DeadMount(tmp_path / "dead")
    try:
        host.start()
        operator = host.connect()
        mount = Mount("/bound", "bind", str(dead.folder))
        restart = Restart(delay_s=0.1, max_delay_s=0.1)
        stuck = [host.task(operator, container=Container(command=SLEEP, mounts=(mount,), restart=restart)) for _ in range(20)]
        operator.push(*stuck)
        more = host.task(operator, *SLEEP)
        operator.push(*stuck, more)
        operator.wait_state("Running", more)
        operator.wait("they say why", lambda: all(operator.tasks[one.uid].reason == "BindSourceSilent" for one in stuck))
        dead.unmount()
        operator.wait_state("Running", *stuck)
    finally:
        dead.unmount()


@pytest.mark.parametrize(
    ("container", "reason", "says"),
    [
        (Container(command=("no-such-program",)), "CommandNotFound", "no-such-program"),
        (Container(command=("/etc/passwd",)), "CommandNotExecutable", "/etc/passwd"),
        (Container(command=("true",), mounts=(Mount("/x", "bind", "/no/such/path"),)), "BindSourceMissing", "/no/such/path"),
        (Container(command=("true",), env=(EnvVar("A", "{{.Task.ID}}"),)), "InvalidTemplate", "{{.Task.ID}}"),
        (Container(command=("true",), stop_signal="SIGNOPE"), "InvalidSignal", "SIGNOPE"),
    ],
)
def test_what_can_never_start_is_rejected_with_the_reason(host: AgentHost, container: Container, reason: str, says: str) -> None:
    host.start()
    operator = host.connect()
    task = host.task(operator, container=container)
    operator.push(task)
    operator.wait_state("Rejected", task)
    report = operator.tasks[task.uid]
    assert report.reason == reason
    assert says in report.message


def test_stop_first_on_one_host_never_runs_both(host: AgentHost) -> None:
    host.start()
    operator = host.connect()
    old = host.task(operator, *SLEEP)
    operator.push(old)
    operator.wait_state("Running", old)
    new = host.task(operator, *SLEEP, replaces=old.uid, desired_state="Ready")
    operator.push(old, new)
    operator.wait_state("Ready", new)
    assert operator.state(old) == "Running"
    operator.push(old, dataclasses.replace(new, desired_state="Running"))
    operator.wait_state("Running", new)
    assert operator.state(old) == "Complete"
    ended = operator.tasks[old.uid].last_exits[-1].at
    started = operator.tasks[new.uid].started_at
    assert started is not None
    assert started >= ended


def test_health_decides_between_starting_and_running(host: AgentHost) -> None:
    host.start()
    operator = host.connect()
    check = Healthcheck(exec=("test", "-e", "/tmp/well"), interval_s=0.4, retries=2, start_interval_s=0.2)
    script = "mkdir -p /tmp; sleep 1; touch /tmp/well; sleep 2; rm /tmp/well; exec sleep 1000"
    task = host.task(operator, container=Container(command=("sh", "-c", script), healthcheck=check, stop_grace_s=0.1))
    task = dataclasses.replace(
        task, container=dataclasses.replace(task.container, healthcheck=dataclasses.replace(check, start_period_s=5.0))
    )
    operator.push(task)
    operator.wait_state("Starting", task)
    operator.wait_state("Running", task)
    operator.wait("the failure", lambda: operator.tasks[task.uid].restarts == 1)
    assert operator.tasks[task.uid].last_exits[-1].reason == "Unhealthy"
    assert [report.state for report in operator.history if report.uid == task.uid][:1] != ["Running"]


@pytest.mark.parametrize(
    "check", [Healthcheck(http_port=8080, http_path="/index.html", interval_s=5.0), Healthcheck(tcp_port=8080, interval_s=5.0)]
)
def test_network_probes_reach_into_the_containers_own_network(host: AgentHost, check: Healthcheck) -> None:
    host.start()
    operator = host.connect()
    script = "mkdir -p /www; echo ok > /www/index.html; sleep 0.5; exec httpd -f -p 127.0.0.1:8080 -h /www"
    task = host.task(operator, container=Container(command=("sh", "-c", script), healthcheck=check, stop_grace_s=0.1))
    operator.push(task)
    operator.wait("Starting first", lambda: operator.state(task) == "Starting" and operator.tasks[task.uid].reason == "HealthCheck")
    operator.wait_state("Running", task)
    assert operator.tasks[task.uid].healthy is True


def test_on_a_full_disk_containers_can_still_be_stopped_and_exits_are_known(make_host: Callable[[], AgentHost]) -> None:
    host = make_host()
    host.put_disk_on_tmpfs("700m")  # the image store wants room to unpack
    host.start()
    operator = host.connect()
    going, ending = host.task(operator, *SLEEP), host.task(operator, *SLEEP)
    operator.push(going, ending)
    operator.wait_state("Running", going, ending)
    filler = Path(host.paths.root, "filler")
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    pid = operator.tasks[ending.uid].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    operator.wait("the exit", lambda: operator.tasks[ending.uid].restarts >= 1)
    assert operator.tasks[ending.uid].last_exits[0].code == 137
    operator.push(ending)
    operator.wait("removal", lambda: going.uid in operator.removed)
    filler.unlink()
    operator.wait_state("Running", ending)
    operator.push()
    operator.wait("removal", lambda: ending.uid in operator.removed)


def test_a_daemon_told_to_end_leaves_its_containers(host: AgentHost) -> None:
    operator, task = sleeping(host)
    pid = operator.tasks[task.uid].pid
    host.kill(signal.SIGTERM)
    assert alive(pid)
    host.start()
    operator = host.connect()
    operator.wait_state("Running", task)
    assert operator.tasks[task.uid].pid == pid


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def reboot(host: AgentHost, operator: Operator) -> None:
    """Power cut and boot, as far as one kernel allows: everything of this agent dies at once, and the boot is another one."""
    operator.close()
    host.power_cut()


def everything_on_disk(host: AgentHost) -> bytes:
    return b"".join(path.read_bytes() for path in Path(host.paths.root).rglob("*") if path.is_file() and "images" not in path.parts)
