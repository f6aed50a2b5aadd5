"""What the chart makes of values, without a cluster."""

from __future__ import annotations

import json

import pytest
import yaml
from moorage_agent.protocol import Sysctl
from moorage_agent.runtime.capabilities import DEFAULT
from moorage_agent.runtime.limits import sysctl_writes
from moorage_operator.settings import Settings

from tests.e2e.chart.helm import CHART, Helm, Object, Values, find
from tests.e2e.chart.image import instructions

pytestmark = pytest.mark.e2e

EVERYTHING: Values = {
    "image": {"repository": "r.example:5000/moorage/operator", "tag": "9", "digest": "sha256:" + "a" * 64, "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "pull"}],
    "replicaCount": 3,
    "watchNamespaces": ["shop", "moorage-system", "default"],
    "serviceAccount": {"name": "operator", "annotations": {"a": "b"}},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "control-plane", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "system-cluster-critical",
    "podAnnotations": {"x": "y"},
    "podLabels": {"team": "platform"},
    "extraEnv": [{"name": "MOORAGE_WRITES_PER_S", "value": "100"}],
    "admissionPolicy": {"actions": ["Warn", "Audit"], "baseline": {"hostNetwork": True}},
    "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "networkPolicy": {"enabled": True, "nodeCIDRs": ["192.0.2.0/24"], "metricsFrom": [{"namespaceSelector": {}}]},
    "flowSchema": {"enabled": True},
}


def test_lint_is_content(helm: Helm) -> None:
    helm("lint", "--strict", CHART)
    helm("lint", "--strict", CHART, *helm.values(EVERYTHING))


def test_the_crds_are_those_of_the_models_and_stay_when_the_chart_goes(helm: Helm) -> None:
    rendered = {each["metadata"]["name"]: each for each in helm.render() if each["kind"] == "CustomResourceDefinition"}
    files = [yaml.safe_load(file.read_text()) for file in (CHART / "files" / "crds").glob("*.yaml")]
    assert len(files) == 5
    assert {name: each["spec"] for name, each in rendered.items()} == {each["metadata"]["name"]: each["spec"] for each in files}
    assert all(each["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for each in rendered.values())


def test_the_crds_may_go_with_the_chart_or_be_somebody_elses(helm: Helm) -> None:
    dropped = [each for each in helm.render({"crds": {"keep": False}}) if each["kind"] == "CustomResourceDefinition"]
    assert len(dropped) == 5
    assert not any("annotations" in each["metadata"] for each in dropped)
    assert not [each for each in helm.render({"crds": {"install": False}}) if each["kind"] == "CustomResourceDefinition"]


def test_the_operator_finds_its_settings_in_the_rendered_environment(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    container = find(helm.render({"watchNamespaces": ["shop", "lab"], "logLevel": "DEBUG"}, release="blue"), "Deployment")
    for each in container["spec"]["template"]["spec"]["containers"][0]["env"]:
        monkeypatch.setenv(each["name"], each.get("value", "moorage-system"))
    settings = Settings()
    assert settings.served == ("shop", "lab")
    assert settings.secrets_served == ("shop", "lab", "moorage-system")
    assert (settings.lease, settings.swarm_secret, settings.log_level) == ("blue-moorage-operator", "blue-moorage-swarm", "DEBUG")


def test_the_default_names_are_those_of_an_operator_without_a_chart(helm: Helm) -> None:
    environment = find(helm.render(), "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
    named = {each["name"]: each.get("value") for each in environment}
    fields = Settings.model_fields
    assert named["MOORAGE_LEASE"] == fields["lease"].default
    assert named["MOORAGE_SWARM_SECRET"] == fields["swarm_secret"].default
    assert "MOORAGE_WATCH_NAMESPACES" not in named


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_every_pod_meets_the_restricted_standard(helm: Helm, values: Values) -> None:
    pods = [pod for each in helm.render(values) if (pod := _pod(each))]
    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert [f"{pod['securityContext'][key]}" for key in ("runAsUser", "runAsGroup")] == instructions("USER")[0].split(":")
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_the_deployment_runs_what_the_image_runs(helm: Helm) -> None:
    container = find(helm.render(), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == json.loads(instructions("CMD")[0])
    assert container["ports"][0]["containerPort"] == int(instructions("EXPOSE")[0])
    assert container["image"].endswith(":0.1.0")


def test_what_is_asked_for_is_rendered(helm: Helm) -> None:
    found = helm.render(EVERYTHING)
    deployment = find(found, "Deployment")
    pod = deployment["spec"]["template"]
    assert deployment["spec"]["replicas"] == 3
    assert pod["spec"]["containers"][0]["image"] == "r.example:5000/moorage/operator:9@sha256:" + "a" * 64
    assert pod["spec"]["serviceAccountName"] == find(found, "ServiceAccount")["metadata"]["name"] == "operator"
    assert pod["metadata"]["labels"]["team"] == "platform"
    assert pod["metadata"]["annotations"]["x"] == "y"
    assert pod["spec"]["topologySpreadConstraints"][0]["topologyKey"] == "zone"
    assert {"name": "MOORAGE_WRITES_PER_S", "value": "100"} in pod["spec"]["containers"][0]["env"]
    for name in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert pod["spec"][name] == EVERYTHING[name]
    assert find(found, "ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"
    assert find(found, "NetworkPolicy")["spec"]["egress"][2]["to"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    assert len([each for each in found if each["kind"] == "FlowSchema"]) == 2


def test_one_replica_has_no_disruption_budget(helm: Helm) -> None:
    assert find(helm.render(), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert not [each for each in helm.render({"replicaCount": 1}) if each["kind"] == "PodDisruptionBudget"]


def test_without_guard_policy_and_roles_none_is_rendered(helm: Helm) -> None:
    values = {
        "uninstallGuard": {"enabled": False},
        "admissionPolicy": {"enabled": False},
        "rbac": {"create": False},
        "serviceAccount": {"create": False},
    }
    found = helm.render(values)
    kinds = {each["kind"] for each in found}
    assert kinds == {"CustomResourceDefinition", "Deployment", "Service", "PodDisruptionBudget", "Pod"}
    assert find(found, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "default"


def test_watch_namespaces_leave_nothing_cluster_wide_but_nodes(helm: Helm) -> None:
    found = helm.render(EVERYTHING)
    role = find(found, "ClusterRole", "moorage-operator")
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {"swarmnodes", "swarmnodes/status"}
    served = [each for each in found if each["kind"] == "RoleBinding" and each["metadata"]["name"] == "moorage-served"]
    assert {each["metadata"]["namespace"] for each in served} == set(EVERYTHING["watchNamespaces"])


def test_no_name_is_rendered_twice(helm: Helm) -> None:
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in helm.render(EVERYTHING)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 2}, "additional properties 'replicas' not allowed"),
        ({"replicaCount": "2"}, "/replicaCount"),
        ({"image": {"tag": "1", "version": "2"}}, "/image"),
        ({"image": {"digest": "sha256:short"}}, "/image/digest"),
        ({"watchNamespaces": "shop"}, "/watchNamespaces"),
        ({"watchNamespaces": ["Shop"]}, "/watchNamespaces/0"),
        ({"watchNamespaces": ["a", "a"]}, "/watchNamespaces"),
        ({"logLevel": "LOUD"}, "/logLevel"),
        ({"crds": {"instal": True}}, "/crds"),
        ({"admissionPolicy": {"actions": []}}, "/admissionPolicy/actions"),
        ({"admissionPolicy": {"actions": ["Deny", "Warn"]}}, "/admissionPolicy/actions"),
        ({"admissionPolicy": {"baseline": {"binds": True}}}, "/admissionPolicy/baseline"),
        ({"networkPolicy": {"sshPorts": [70000]}}, "/networkPolicy/sshPorts/0"),
        ({"networkPolicy": {"nodeCIDRs": ["everywhere"]}}, "/networkPolicy/nodeCIDRs/0"),
        ({"resources": {"limits": {"memory": "much"}}}, "/resources/limits/memory"),
        ({"extraEnv": [{"nam": "A"}]}, "/extraEnv/0"),
        ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "/metrics/serviceMonitor/interval"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused_by_name(helm: Helm, values: Values, said: str) -> None:
    done = helm("template", "moorage", CHART, *helm.values(values), check=False)
    assert done.returncode != 0
    assert said in done.stderr


def test_every_default_is_in_the_schema(helm: Helm) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(yaml.safe_load((CHART / "values.yaml").read_text())) == set(schema["properties"]) - {"global"}


def test_the_policy_and_the_hosts_agree_on_capabilities_and_sysctls(helm: Helm) -> None:
    policy = find(helm.render(), "ValidatingAdmissionPolicy", "moorage-baseline-services")
    findings = next(each["expression"] for each in policy["spec"]["variables"] if each["name"] == "findings")
    assert all(f"'{name}'" in findings for name in DEFAULT)
    pattern = findings.split("matches('")[1].split("')")[0]
    assert pattern == "^(net[.]|fs[.]mqueue[.]|kernel[.]shm|kernel[.](msgmax|msgmnb|msgmni|sem)$)"
    for name in ("net.core.somaxconn", "fs.mqueue.msg_max", "kernel.shmmax", "kernel.sem"):
        assert sysctl_writes([Sysctl(name, "1")], isolated_network=True, private_ipc=True)


def _pod(rendered: Object) -> Object:
    """The Pod's spec of what runs Pods; nothing of what does not."""
    spec: Object = rendered.get("spec") or {}
    return spec if rendered["kind"] == "Pod" else spec.get("template", {}).get("spec", {})
