"""Every knob of the operator, with unit and reason. Read once, from variables MOORAGE_<NAME>."""

from __future__ import annotations

import uuid
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _own_namespace() -> str:
    return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else "moorage-system"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="MOORAGE_", frozen=True)

    namespace: str = Field(default_factory=_own_namespace)
    """The operator's own namespace: Lease, the swarm's identity, and the keys of Nodes live there and nowhere else."""

    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose Stacks, Services and Images are served, as a JSON list; empty: all."""

    lease: str = "moorage-operator"
    """Name of the Lease that decides which process commands the swarm."""

    swarm_secret: str = "moorage-swarm"  # noqa: S105 (a name)
    """Secret with the swarm's id and the key that hashes of secrets are made with; made at first start."""

    identity: str = Field(default_factory=lambda: str(uuid.uuid4()))
    """One per process: a restarted process is another candidate."""

    http_host: str | None = None
    http_port: int = 8080
    """Where /healthz, /readyz and /metrics answer. No host: on every address, IPv4 and IPv6; port 0: on a free one."""

    agent_root: str = "/var/lib/moorage"
    """Where the agent lives on hosts."""

    writes_in_flight: int = 16
    """API writes of one kind of work at a time; beyond this a busy API server gains nothing."""

    writes_per_s: float = 300.0
    """API writes of one kind of work a second; 20,000 task states then take about a minute of one server core."""

    relist_s: float = 600.0
    """How often every cache is compared with a full list, ±20 %: kopf's watches forget deletions that fall into a gap."""

    upgrade_wave_percent: int = 10
    """Share of the nodes that get a new agent version at a time, after the first node proved it."""

    log_level: str = "INFO"

    @property
    def served(self) -> tuple[str, ...]:
        """The namespaces to list and watch, one by one; "" means all at once."""
        return tuple(dict.fromkeys(self.watch_namespaces)) or ("",)

    @property
    def secrets_served(self) -> tuple[str, ...]:
        """Those whose Secrets are watched: the keys of Nodes are in the operator's own."""
        return tuple(dict.fromkeys((*self.watch_namespaces, self.namespace))) if self.watch_namespaces else ("",)
