"""Questions to the API server's authorizer, and the whole list of what an account may do."""

from __future__ import annotations

import json
from typing import Any

from tests.kube import ControlPlane


def may(plane: ControlPlane, user: str, verb: str, resource: str, *, namespace: str = "", name: str = "") -> bool:
    """`resource` as swarmservices/scale.moorage.dev, or plain for the core group."""
    full, _, group = resource.partition(".")
    plural, _, subresource = full.partition("/")
    about = {"verb": verb, "group": group, "resource": plural, "subresource": subresource, "namespace": namespace, "name": name}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": user, "resourceAttributes": about}}
    answer = plane.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
    assert answer.ok, answer.body
    return bool(answer.body["status"].get("allowed"))


def own_rights(plane: ControlPlane, user: str, namespace: str) -> dict[str, set[str]]:
    """Verbs by resource that this service account has in a namespace, beyond those of any other; cluster-wide ones included.

    A right to one object is called resource[name].
    """
    everybody = _rights(plane, "system:serviceaccount:default:nobody", namespace)
    return {resource: verbs for resource, verbs in _rights(plane, user, namespace).items() if verbs != everybody.get(resource)}


def _rights(plane: ControlPlane, user: str, namespace: str) -> dict[str, set[str]]:
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    impersonated = [f"--as={user}", "--as-group=system:serviceaccounts", "--as-group=system:authenticated"]
    done = plane.kubectl("create", "--raw", path, "-f", "-", *impersonated, input=json.dumps(review))
    rights: dict[str, set[str]] = {}
    for rule in json.loads(done.stdout)["status"]["resourceRules"]:
        for resource in _resources(rule):
            rights.setdefault(resource, set()).update(rule["verbs"])
    return rights


def _resources(rule: dict[str, Any]) -> list[str]:
    names = "".join(f"[{name}]" for name in rule.get("resourceNames", ()))
    return [
        f"{resource}.{group}{names}" if group else f"{resource}{names}"
        for group in rule.get("apiGroups", [""])
        for resource in rule["resources"]
    ]
