"""Python users drive Moorage with Kubernetes' official client: create, watch, scale, delete."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client, config, watch

from tests.swarm import Swarm, service

pytestmark = pytest.mark.e2e

GROUP, VERSION = "moorage.dev", "v1alpha1"


def test_a_service_is_created_watched_scaled_and_deleted(swarm: Swarm, namespace: str, app: str) -> None:
    api: Any = client.CustomObjectsApi(config.new_client_from_config(str(swarm.plane.kubeconfig)))
    api.create_namespaced_custom_object(
        GROUP, VERSION, namespace, "swarmservices", service("web", app, "sleep", "3600", namespace=namespace)
    )

    stream: Any = watch.Watch()
    for event in stream.stream(api.list_namespaced_custom_object, GROUP, VERSION, namespace, "swarmservices", timeout_seconds=60):
        if event["object"].get("status", {}).get("replicasReady") == "1/1":
            stream.stop()
    assert swarm.states("web", namespace) == {"Running": 1}

    api.patch_namespaced_custom_object_scale(GROUP, VERSION, namespace, "swarmservices", "web", {"spec": {"replicas": 2}})
    swarm.wait_running("web", 2, namespace=namespace)
    assert api.get_namespaced_custom_object_scale(GROUP, VERSION, namespace, "swarmservices", "web")["spec"]["replicas"] == 2

    api.delete_namespaced_custom_object(GROUP, VERSION, namespace, "swarmservices", "web")
    swarm.wait_running("web", 0, namespace=namespace)
