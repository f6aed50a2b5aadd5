"""From what users write about a container to what the agent runs: TaskTemplate → protocol.Container.

Values of Secrets and ConfigMaps stay out: the result holds keys. Templates ({{.Task.Slot}} …) stay in: the agent expands them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moorage_agent import protocol

from moorage_operator.api import ServiceSpec, ServiceTemplate, TaskTemplate, cpu_millis, file_mode, memory_bytes, seconds
from moorage_operator.api.container import Restart
from moorage_operator.api.env import EnvFrom, EnvVar
from moorage_operator.api.files import Mount
from moorage_operator.api.health import Healthcheck
from moorage_operator.api.resources import Resources
from moorage_operator.api.security import Security
from moorage_operator.plan.container_data import CONFIG_MAP, SECRET, DataObject, DataVersions, MissingData

SECRETS_DIRECTORY = "/run/secrets"


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose container it is. A Service without a Stack keeps its volumes apart from those of a Stack of the same name."""

    namespace: str
    service: str
    stack: str | None = None

    def volume_key(self, name: str) -> str:
        return f"{self.namespace}/{self.stack or f'Service.{self.service}'}/{name}"


@dataclass(frozen=True, slots=True)
class Compiled:
    """`data` is the content the container depends on, by key of a value without its hash: it belongs to the version."""

    container: protocol.Container
    data: Mapping[str, str]
    missing: tuple[MissingData, ...]


def compile_container(spec: ServiceTemplate, owner: Owner, data: DataVersions) -> Compiled:
    """Raises InvalidSpec for a quantity, duration or mode that the API server should have refused."""
    task = spec.task
    values = _Values(owner.namespace, data, pinned=spec.on_data_change == "Rollout")
    container = protocol.Container(
        command=task.command,
        args=task.args,
        env=_env(task, values),
        working_dir=task.working_dir,
        user=task.user,
        groups=task.groups,
        hostname=task.hostname,
        tty=task.tty,
        stdin=task.stdin,
        init=task.init,
        read_only=task.read_only,
        stop_signal=task.stop_signal,
        stop_grace_s=seconds(task.stop_grace_period),
        healthcheck=None if task.healthcheck is None else _healthcheck(task.healthcheck),
        mounts=tuple(_mount(mount, owner) for mount in task.mounts),
        files=tuple(_files(task, values)),
        resources=_resources(task.resources),
        security=_security(task.security),
        logs=protocol.LogLimits(memory_bytes(task.logs.max_size), task.logs.max_files),
        restart=restart_of(task.restart),
        network=spec.network.mode,
        ports=ports_of(spec),
    )
    return Compiled(container, dict(values.used), tuple(values.missing))


def ports_of(spec: ServiceTemplate) -> tuple[protocol.Port, ...]:
    return tuple(protocol.Port(port.target, port.protocol, port.host_ip) for port in spec.ports)


def restart_of(restart: Restart) -> protocol.Restart:
    return protocol.Restart(
        condition=restart.condition,
        delay_s=seconds(restart.delay),
        max_delay_s=seconds(restart.max_delay),
        max_attempts=restart.max_attempts,
        window_s=None if restart.window is None else seconds(restart.window),
    )


def volume_names(spec: ServiceSpec) -> tuple[str, ...]:
    """The named volumes a task mounts, as written."""
    return tuple(mount.volume.name for mount in spec.task.mounts if mount.volume is not None)


# --- data


class _Values:
    """Gives keys of values and notes what was asked for. With `pinned` a key names one content; without, whatever is current."""

    def __init__(self, namespace: str, data: DataVersions, *, pinned: bool) -> None:
        self._namespace, self._data, self._pinned = namespace, data, pinned
        self.used: dict[str, str] = {}
        self.missing: list[MissingData] = []

    def key(self, kind: str, name: str, key: str, where: str) -> str:
        wanted = DataObject(kind, self._namespace, name)
        entries = self._data.objects.get(wanted)
        if entries is None or key not in entries:
            self.missing.append(MissingData(wanted, None if entries is None else key, where))
            return wanted.value_key(key)
        return self._noted(wanted, key, entries[key])

    def keys(self, kind: str, name: str, where: str) -> Iterator[tuple[str, str]]:
        """Each key of the object, with the key of its value."""
        wanted = DataObject(kind, self._namespace, name)
        entries = self._data.objects.get(wanted)
        if entries is None:
            self.missing.append(MissingData(wanted, None, where))
            return
        for key in sorted(entries):
            yield key, self._noted(wanted, key, entries[key])

    def _noted(self, wanted: DataObject, key: str, content: str) -> str:
        bare = wanted.value_key(key)
        if not self._pinned:
            return bare
        self.used[bare] = content
        return f"{bare}/{content}"


def _env(task: TaskTemplate, values: _Values) -> tuple[protocol.EnvVar, ...]:
    """One entry per name: later envFrom entries win over earlier ones, env wins over all of them."""
    found: dict[str, protocol.EnvVar] = {}
    for source in task.env_from:
        found.update((variable.name, variable) for variable in _env_from(source, values))
    found.update((variable.name, _variable(variable, values)) for variable in task.env)
    return tuple(found.values())


def _env_from(source: EnvFrom, values: _Values) -> Iterator[protocol.EnvVar]:
    kind, ref = (SECRET, source.secret_ref) if source.secret_ref is not None else (CONFIG_MAP, source.config_map_ref)
    if ref is not None:
        for key, value_key in values.keys(kind, ref.name, "envFrom"):
            yield protocol.EnvVar((source.prefix or "") + key, key=value_key)


def _variable(variable: EnvVar, values: _Values) -> protocol.EnvVar:
    source = variable.value_from
    if source is None:
        return protocol.EnvVar(variable.name, value=variable.value or "")
    kind, ref = (SECRET, source.secret_key_ref) if source.secret_key_ref is not None else (CONFIG_MAP, source.config_map_key_ref)
    if ref is None:
        return protocol.EnvVar(variable.name, value="")
    return protocol.EnvVar(variable.name, key=values.key(kind, ref.name, ref.key, f"variable {variable.name}"))


def _files(task: TaskTemplate, values: _Values) -> Iterator[protocol.DataFile]:
    for secret in task.secrets:
        target = secret.target if secret.target.startswith("/") else f"{SECRETS_DIRECTORY}/{secret.target}"
        key = values.key(SECRET, secret.secret_ref.name, secret.secret_ref.key, f"file {target}")
        yield protocol.DataFile(target, key, secret=True, uid=secret.uid, gid=secret.gid, mode=file_mode(secret.mode))
    for config in task.configs:
        key = values.key(CONFIG_MAP, config.config_map_ref.name, config.config_map_ref.key, f"file {config.target}")
        yield protocol.DataFile(config.target, key, secret=False, uid=config.uid, gid=config.gid, mode=file_mode(config.mode))


# --- parts


def _healthcheck(check: Healthcheck) -> protocol.Healthcheck:
    return protocol.Healthcheck(
        exec=None if check.exec is None else check.exec.command,
        http_port=None if check.http is None else check.http.port,
        http_path="/" if check.http is None else check.http.path,
        tcp_port=None if check.tcp is None else check.tcp.port,
        disabled=check.disabled,
        interval_s=seconds(check.interval),
        timeout_s=seconds(check.timeout),
        retries=check.retries,
        start_period_s=seconds(check.start_period),
        start_interval_s=seconds(check.start_interval),
    )


def _mount(mount: Mount, owner: Owner) -> protocol.Mount:
    if mount.volume is not None:
        return protocol.Mount(mount.target, "volume", owner.volume_key(mount.volume.name), mount.read_only)
    if mount.bind is not None:
        return protocol.Mount(mount.target, "bind", mount.bind.path, mount.read_only)
    size = mount.tmpfs.size if mount.tmpfs is not None else None
    return protocol.Mount(mount.target, "tmpfs", None, mount.read_only, _bytes(size))


def _resources(resources: Resources) -> protocol.Resources:
    limits, reservations = resources.limits, resources.reservations
    return protocol.Resources(
        cpu_limit=_cpu(limits.cpu),
        cpu_reservation=_cpu(reservations.cpu),
        memory_limit=_bytes(limits.memory),
        memory_reservation=_bytes(reservations.memory),
        swap_limit=_bytes(limits.swap),
        pids_limit=limits.pids,
    )


def _security(security: Security) -> protocol.Security:
    return protocol.Security(
        cap_add=security.cap_add,
        cap_drop=security.cap_drop,
        privileged=security.privileged,
        no_new_privs=security.no_new_privileges,
        seccomp=security.seccomp,
        app_armor=security.app_armor,
        user_namespace=security.user_namespace,
        devices=tuple(protocol.Device(device.path, device.target, device.permissions) for device in security.devices),
        sysctls=tuple(protocol.Sysctl(sysctl.name, sysctl.value) for sysctl in security.sysctls),
        ulimits=tuple(protocol.Ulimit(ulimit.name, ulimit.soft, ulimit.hard) for ulimit in security.ulimits),
        shm_size=_bytes(security.shm_size),
        oom_score_adj=security.oom_score_adj,
        pid=security.pid,
        ipc=security.ipc,
    )


def _cpu(quantity: str | None) -> int | None:
    return None if quantity is None else cpu_millis(quantity)


def _bytes(quantity: str | None) -> int | None:
    return None if quantity is None else memory_bytes(quantity)
