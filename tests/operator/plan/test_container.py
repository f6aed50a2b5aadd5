"""What users write about a container becomes what the agent runs, and what it needs of Secrets and ConfigMaps is told apart from values."""

from __future__ import annotations

from typing import Any

from moorage_agent import protocol
from moorage_operator.api import ServiceSpec
from moorage_operator.plan.container import Compiled, Owner, compile_container
from moorage_operator.plan.container_data import DataObject, DataVersions, data_objects

OWNER = Owner("shop", "shop-web", "shop")
KNOWN = DataVersions(
    {
        DataObject("Secret", "shop", "db"): {"password": "aaaaaaaaaaaaaaaa", "user": "bbbbbbbbbbbbbbbb"},
        DataObject("ConfigMap", "shop", "site"): {"index.html": "cccccccccccccccc", "PORT": "dddddddddddddddd"},
    }
)


def compiled(task: dict[str, Any], *, data: DataVersions = KNOWN, owner: Owner = OWNER, **spec: Any) -> Compiled:
    return compile_container(ServiceSpec.parse({"task": {"image": "app:1", **task}, **spec}), owner, data)


def container(task: dict[str, Any], **spec: Any) -> protocol.Container:
    return compiled(task, **spec).container


def test_an_empty_template_is_the_protocols_own_default() -> None:
    assert container({}) == protocol.Container()
    assert protocol.to_wire(container({})) == {}


def test_every_field_reaches_the_agent() -> None:
    task = {
        "command": ["/bin/app"],
        "args": ["-v"],
        "env": [{"name": "SLOT", "value": "{{.Task.Slot}}"}],
        "workingDir": "/srv",
        "user": "1000:1000",
        "groups": ["27"],
        "hostname": "web-{{.Task.Slot}}",
        "tty": True,
        "stdin": True,
        "init": True,
        "readOnly": True,
        "stopSignal": "SIGQUIT",
        "stopGracePeriod": "1m30s",
        "healthcheck": {"http": {"port": 80, "path": "/up"}, "interval": "2s", "timeout": "500ms", "retries": 5, "startPeriod": "9s"},
        "mounts": [
            {"target": "/data", "volume": {"name": "data-{{.Task.Slot}}"}},
            {"target": "/etc/ssl", "bind": {"path": "/etc/ssl"}, "readOnly": True},
            {"target": "/tmp", "tmpfs": {"size": "64Mi"}},
        ],
        "resources": {
            "limits": {"cpu": "1.5", "memory": "256Mi", "swap": "0", "pids": 99},
            "reservations": {"cpu": "250m", "memory": "128Mi"},
        },
        "security": {
            "capAdd": ["NET_ADMIN"],
            "capDrop": ["ALL"],
            "noNewPrivileges": False,
            "devices": [{"path": "/dev/fuse"}],
            "sysctls": [{"name": "net.core.somaxconn", "value": "1024"}],
            "ulimits": [{"name": "nofile", "soft": 1024, "hard": 4096}],
            "shmSize": "128Mi",
            "oomScoreAdj": 100,
            "pid": "Host",
        },
        "logs": {"maxSize": "1Mi", "maxFiles": 2},
        "restart": {"condition": "OnFailure", "delay": "2s", "maxDelay": "1m", "maxAttempts": 3, "window": "10m"},
    }
    spec = {"network": {"mode": "Host"}, "ports": [{"name": "http", "target": 80, "hostIP": "192.0.2.1"}]}
    assert container(task, **spec) == protocol.Container(
        command=("/bin/app",),
        args=("-v",),
        env=(protocol.EnvVar("SLOT", value="{{.Task.Slot}}"),),
        working_dir="/srv",
        user="1000:1000",
        groups=("27",),
        hostname="web-{{.Task.Slot}}",
        tty=True,
        stdin=True,
        init=True,
        read_only=True,
        stop_signal="SIGQUIT",
        stop_grace_s=90.0,
        healthcheck=protocol.Healthcheck(http_port=80, http_path="/up", interval_s=2.0, timeout_s=0.5, retries=5, start_period_s=9.0),
        mounts=(
            protocol.Mount("/data", "volume", "shop/shop/data-{{.Task.Slot}}"),
            protocol.Mount("/etc/ssl", "bind", "/etc/ssl", read_only=True),
            protocol.Mount("/tmp", "tmpfs", size=64 * 2**20),
        ),
        resources=protocol.Resources(1500, 250, 256 * 2**20, 128 * 2**20, 0, 99),
        security=protocol.Security(
            cap_add=("NET_ADMIN",),
            cap_drop=("ALL",),
            no_new_privs=False,
            devices=(protocol.Device("/dev/fuse"),),
            sysctls=(protocol.Sysctl("net.core.somaxconn", "1024"),),
            ulimits=(protocol.Ulimit("nofile", 1024, 4096),),
            shm_size=128 * 2**20,
            oom_score_adj=100,
            pid="Host",
        ),
        logs=protocol.LogLimits(2**20, 2),
        restart=protocol.Restart("OnFailure", 2.0, 60.0, 3, 600.0),
        network="Host",
        ports=(protocol.Port(80, "TCP", "192.0.2.1"),),
    )


def test_the_wire_form_reads_back_as_the_same_container() -> None:
    made = container(
        {"healthcheck": {"exec": {"command": ["true"]}}, "secrets": [{"target": "pw", "secretRef": {"name": "db", "key": "password"}}]}
    )
    assert protocol.from_wire(protocol.Container, protocol.to_wire(made)) == made


def test_secrets_and_configs_are_keys_with_the_hash_of_their_content() -> None:
    made = container(
        {
            "env": [{"name": "PW", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}],
            "secrets": [{"target": "db", "secretRef": {"name": "db", "key": "password"}, "uid": 70, "mode": "0400"}],
            "configs": [{"target": "/srv/index.html", "configMapRef": {"name": "site", "key": "index.html"}}],
        }
    )
    assert made.env == (protocol.EnvVar("PW", key="secret/shop/db/password/aaaaaaaaaaaaaaaa"),)
    assert made.files == (
        protocol.DataFile("/run/secrets/db", "secret/shop/db/password/aaaaaaaaaaaaaaaa", secret=True, uid=70, mode=0o400),
        protocol.DataFile("/srv/index.html", "config/shop/site/index.html/cccccccccccccccc", secret=False),
    )


def test_with_ignore_a_key_names_whatever_content_is_current() -> None:
    made = compiled({"env": [{"name": "PW", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]}, onDataChange="Ignore")
    assert made.container.env == (protocol.EnvVar("PW", key="secret/shop/db/password"),)
    assert made.data == {}


def test_env_wins_over_env_from_and_later_sources_over_earlier_ones() -> None:
    made = container(
        {
            "envFrom": [{"configMapRef": {"name": "site"}}, {"secretRef": {"name": "db"}, "prefix": "DB_"}],
            "env": [{"name": "DB_user", "value": "me"}],
        }
    )
    assert made.env == (
        protocol.EnvVar("PORT", key="config/shop/site/PORT/dddddddddddddddd"),
        protocol.EnvVar("index.html", key="config/shop/site/index.html/cccccccccccccccc"),
        protocol.EnvVar("DB_password", key="secret/shop/db/password/aaaaaaaaaaaaaaaa"),
        protocol.EnvVar("DB_user", value="me"),
    )


def test_what_is_missing_is_named_with_its_remedy() -> None:
    made = compiled(
        {
            "env": [{"name": "PW", "valueFrom": {"secretKeyRef": {"name": "db", "key": "pasword"}}}],
            "envFrom": [{"configMapRef": {"name": "gone"}}],
        }
    )
    assert [(one.reason, one.message) for one in made.missing] == [
        ("ConfigMapMissing", "ConfigMap gone does not exist in namespace shop; envFrom needs it: create it"),
        ("SecretKeyMissing", "Secret db in namespace shop has no key pasword; variable PW needs it: add the key or change the reference"),
    ]


def test_every_object_that_is_read_is_announced() -> None:
    spec = ServiceSpec.parse(
        {
            "task": {
                "image": "app:1",
                "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c1", "key": "k"}}},
                ],
                "envFrom": [{"secretRef": {"name": "s2"}}, {"configMapRef": {"name": "c2"}}],
                "secrets": [{"target": "x", "secretRef": {"name": "s3", "key": "k"}}],
                "configs": [{"target": "/x", "configMapRef": {"name": "c3", "key": "k"}}],
            }
        }
    )
    wanted = {("Secret", "s1"), ("Secret", "s2"), ("Secret", "s3"), ("ConfigMap", "c1"), ("ConfigMap", "c2"), ("ConfigMap", "c3")}
    assert data_objects(spec.task, "shop") == {DataObject(kind, "shop", name) for kind, name in wanted}
    missing = compile_container(spec, OWNER, DataVersions()).missing
    assert {one.object for one in missing} == data_objects(spec.task, "shop")


def test_a_service_without_a_stack_shares_no_volume_with_a_stack_of_its_name() -> None:
    task = {"mounts": [{"target": "/d", "volume": {"name": "data"}}]}
    of_stack = container(task, owner=Owner("shop", "web", "web")).mounts[0].source
    alone = container(task, owner=Owner("shop", "web")).mounts[0].source
    assert of_stack == "shop/web/data"
    assert alone == "shop/Service.web/data"
