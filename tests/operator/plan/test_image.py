"""Images: which node resolves, when, what is pinned, and what the status says of the nodes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from moorage_agent import protocol
from moorage_agent.protocol import ImageReport, ImageSource, Layer, ResolvedImage
from moorage_operator.api import Image, ImageStatus, find, rfc3339
from moorage_operator.plan.fleet_view import NodeView
from moorage_operator.plan.image import Attempt, ImagePlan, plan_image, wanted_by
from moorage_operator.plan.image_source import home_constraint, image_source, owned_image_name
from moorage_operator.plan.image_status import Holders, image_status, resolved_status, write_at

from tests.operator.plan import fleets
from tests.operator.plan.fleets import NOON
from tests.operator.plan.objects import DIGEST, image

OTHER = "sha256:" + "b" * 64
PINNED = {"digest": DIGEST, "reference": "app:1", "platform": "linux/amd64", "resolvedAt": rfc3339(NOON)}
ANSWER = ResolvedImage(
    digest=DIGEST,
    platform="linux/amd64",
    size=31 * 2**20,
    config=protocol.ImageConfig(entrypoint=("/app",), env=("A=1",), healthcheck=protocol.Healthcheck(exec=("ping",), interval_s=1.5)),
    layers=(Layer(OTHER, 31 * 2**20),),
    platforms=("linux/amd64", "linux/arm64"),
)


def nodes(*names: str, **spec: Any) -> list[NodeView]:
    return [fleets.node(name, arch="amd64", **spec) for name in names]


def failed(node: str, *, ago: float = 0, code: str = "RegistryUnreachable") -> Attempt:
    return Attempt(node, NOON - timedelta(seconds=ago), code, "no route to registry.example")


def refreshed(rollout: str) -> Image:
    return image(registry={"reference": "app:1", "refresh": {"interval": "1h", "rollout": rollout}}, status=PINNED)


def with_status(one: Image, status: ImageStatus) -> Image:
    return Image.parse({**one.wire(), "status": status.wire()})


def truth(status: ImageStatus | None, kind: str) -> str:
    found = find(status.conditions, kind) if status else None
    assert found is not None
    return f"{found.status} {found.reason}"


# --- who is asked, and when


def test_a_ready_node_that_allows_the_namespace_is_asked() -> None:
    swarm = [*nodes("n1", ready=False), *nodes("n2", namespaces=["lab"]), *nodes("n3", out_of_service=True), *nodes("n4")]
    plan = plan_image(image(), swarm, (), now=NOON)
    assert plan.resolve is not None
    assert (plan.resolve.node, plan.resolve.source) == ("n4", ImageSource("Registry", reference="app:1"))


@pytest.mark.parametrize(
    ("asked", "before", "found", "again"),
    [
        ("linux/arm64", "linux/arm64", "linux/arm64/v8", False),
        ("linux/arm/v7", "linux/arm/v7", "linux/arm/v6", False),
        ("linux/amd64", None, "linux/amd64", False),
        ("linux/arm64", "linux/amd64", "linux/amd64", True),
        ("linux/arm64", None, "linux/amd64", True),
    ],
)
def test_a_platform_is_asked_for_again_only_when_spec_names_another(asked: str, before: str | None, found: str, again: bool) -> None:
    pinned = PINNED | {"platform": found} | ({"askedPlatform": before} if before else {})
    one = image(registry={"reference": "app:1", "platform": asked}, status=pinned)
    assert (plan_image(one, nodes("n1"), (), now=NOON + timedelta(days=1)).resolve is not None) is again


def test_what_was_asked_for_is_kept_beside_the_answer() -> None:
    one = image(registry={"reference": "app:1", "platform": "linux/arm64"})
    status = resolved_status(one, replace(ANSWER, platform="linux/arm64/v8"), now=NOON)
    assert (status.asked_platform, status.platform) == ("linux/arm64", "linux/arm64/v8")
    assert plan_image(with_status(one, status), nodes("n1"), (), now=NOON + timedelta(seconds=1)).resolve is None


def test_a_refresh_asks_for_the_platform_that_is_pinned_whichever_node_is_there() -> None:
    arm = fleets.node("n1", arch="arm64")
    plan = plan_image(refreshed("Manual"), [arm], (), now=NOON + timedelta(hours=2))
    assert plan.resolve is not None
    assert plan.resolve.source == ImageSource("Registry", reference="app:1", platform="linux/amd64")


def test_a_new_reference_is_looked_up_for_the_node_that_is_asked() -> None:
    moved = image(registry={"reference": "app:2"}, status=PINNED)
    plan = plan_image(moved, nodes("n1"), (), now=NOON)
    assert plan.resolve is not None
    assert plan.resolve.source == ImageSource("Registry", reference="app:2")


def test_what_an_image_says_of_itself_is_shortened_to_what_a_status_may_hold() -> None:
    """Anything else would be refused by the API server, and the image never pinned."""
    long, many = "x" * 40000, tuple("x" * 5000 for _ in range(600))
    config = protocol.ImageConfig(
        entrypoint=many,
        command=many,
        env=many,
        user=long,
        working_dir=long,
        ports=many,
        volumes=many,
        stop_signal=long,
        healthcheck=protocol.Healthcheck(exec=many),
        labels={f"{number}": long for number in range(300)} | {long: ""},
    )
    status = resolved_status(image(), replace(ANSWER, config=config, platforms=many), now=NOON)
    assert ImageStatus.model_validate(status.wire()) == status
    assert status.digest == DIGEST


def test_a_drained_node_can_still_be_asked() -> None:
    assert plan_image(image(), nodes("n1", availability="Drain"), (), now=NOON).resolve is not None


def test_without_a_node_it_waits_and_says_so() -> None:
    plan = plan_image(image(), nodes("n1", ready=False), (), now=NOON)
    assert (plan.resolve, plan.waits) == (None, "waits for a ready Node that allows namespace shop")


def test_only_the_node_that_has_an_archive_is_asked() -> None:
    one = image(archive={"nodePath": {"nodeRef": {"name": "n2"}, "path": "/srv/app.tar"}})
    plan = plan_image(one, nodes("n1", "n2", "n3"), (), now=NOON)
    assert plan.resolve is not None
    assert (plan.resolve.node, plan.resolve.source) == ("n2", ImageSource("ArchivePath", path="/srv/app.tar"))
    assert home_constraint(one) == ("node.name == n2",)
    assert plan_image(one, nodes("n1"), (), now=NOON).waits == "waits for Node n2, which has the archive, to be ready"


def test_after_a_failure_the_next_node_is_asked_at_once_and_all_get_their_turn() -> None:
    swarm, attempts = nodes("n1", "n2", "n3"), list[Attempt]()
    for _ in swarm:
        plan = plan_image(image(), swarm, attempts, now=NOON)
        assert plan.resolve is not None
        attempts.append(failed(plan.resolve.node))
    assert {attempt.node for attempt in attempts} == {"n1", "n2", "n3"}


@pytest.mark.parametrize(("rounds", "pause"), [(1, 5), (2, 10), (3, 20), (7, 300), (50, 300)])
def test_when_all_have_failed_the_pause_doubles_up_to_five_minutes(rounds: int, pause: int) -> None:
    attempts = [failed("n1")] * rounds
    assert plan_image(image(), nodes("n1"), attempts, now=NOON) == ImagePlan(again_at=NOON + timedelta(seconds=pause))
    assert plan_image(image(), nodes("n1"), attempts, now=NOON + timedelta(seconds=pause)).resolve is not None


def test_a_registry_that_asks_for_a_longer_pause_gets_it() -> None:
    limited = Attempt("n1", NOON, "RateLimited", "too many requests", retry_after_s=90)
    assert plan_image(image(), nodes("n1"), [limited], now=NOON).again_at == NOON + timedelta(seconds=90)


@pytest.mark.parametrize(
    ("spec", "status", "asks"),
    [
        ({"reference": "app:1"}, {}, True),
        ({"reference": "app:1"}, PINNED, False),
        ({"reference": "app:2"}, PINNED, True),
        ({"reference": "app:1", "platform": "linux/arm64"}, PINNED, True),
        ({"reference": "app:1", "platform": "linux/amd64"}, PINNED, False),
        ({"reference": "app:1", "refresh": {"interval": "30m"}}, PINNED, True),
        ({"reference": "app:1", "refresh": {"interval": "2h"}}, PINNED, False),
    ],
)
def test_a_pin_holds_until_spec_changes_or_refresh_is_due(spec: dict[str, Any], status: dict[str, Any], asks: bool) -> None:
    plan = plan_image(image(registry=spec, status=status), nodes("n1"), (), now=NOON + timedelta(hours=1))
    assert (plan.resolve is not None) is asks


def test_a_digest_never_changes_so_it_is_never_looked_at_again() -> None:
    reference = f"app@{DIGEST}"
    one = image(registry={"reference": reference, "refresh": {"interval": "1s"}}, status=PINNED | {"reference": reference})
    assert plan_image(one, nodes("n1"), (), now=NOON + timedelta(days=9)) == ImagePlan()


def test_a_refresh_says_when_it_is_due() -> None:
    assert plan_image(refreshed("Auto"), nodes("n1"), (), now=NOON).again_at == NOON + timedelta(hours=1)


# --- where it comes from


def test_secrets_and_bundles_are_named_by_key() -> None:
    registry = {
        "reference": "r.example/app:1",
        "pullSecretRef": {"name": "cred"},
        "caBundle": {"name": "trust", "key": "ca.pem"},
        "insecure": True,
    }
    assert image_source(image(registry=registry)) == ImageSource(
        "Registry", reference="r.example/app:1", credentials="pull/shop/cred/r.example/app", ca_bundle="ca/shop/trust/ca.pem", insecure=True
    )
    assert image_source(image(archive={"url": "https://x.example/a.tar", "sha256": "c" * 64})) == ImageSource(
        "ArchiveUrl", url="https://x.example/a.tar", sha256="c" * 64
    )
    assert image_source(image(archive={"configMapRef": {"name": "small", "key": "a.tar"}})) == ImageSource(
        "ArchiveData", key="config/shop/small/a.tar"
    )


def test_each_bare_reference_of_a_service_has_an_image_of_its_own() -> None:
    assert owned_image_name("web", "app:1") == owned_image_name("web", "app:1")
    assert len({owned_image_name(service, reference) for service in ("web", "db") for reference in ("app:1", "app:2")}) == 4
    assert owned_image_name("web", "app:1").startswith("web-")


# --- what is pinned


def test_an_answer_is_pinned_with_all_it_tells() -> None:
    status = resolved_status(image(), ANSWER, now=NOON)
    assert (status.reference, status.digest, status.short_digest, status.size) == ("app:1", DIGEST, "a" * 12, "31Mi")
    assert (status.layer_count, status.platforms) == (1, ("linux/amd64", "linux/arm64"))
    assert status.config is not None
    assert (status.config.entrypoint, status.config.env) == (("/app",), ("A=1",))
    assert status.config.healthcheck is not None
    assert status.config.healthcheck.interval == "1.5s"
    assert plan_image(with_status(image(), status), nodes("n1"), (), now=NOON) == ImagePlan()


def moved(one: Image) -> ImageStatus:
    return resolved_status(one, ResolvedImage(OTHER, "linux/amd64", 1, protocol.ImageConfig()), now=NOON + timedelta(hours=1))


def test_a_tag_that_moved_is_only_shown_with_manual() -> None:
    one = refreshed("Manual")
    status = moved(one)
    assert (status.digest, status.available_digest) == (DIGEST, OTHER)
    shown = image_status(with_status(one, status), ImagePlan(), (), Holders(), now=NOON)
    assert truth(shown, "UpdateAvailable") == "True TagMoved"
    assert truth(shown, "Ready") == "True Resolved"
    assert plan_image(with_status(one, status), nodes("n1"), (), now=NOON).again_at == NOON + timedelta(hours=2)


def test_a_tag_that_moved_is_taken_with_auto() -> None:
    assert (moved(refreshed("Auto")).digest, moved(refreshed("Auto")).available_digest) == (OTHER, None)


def test_a_tag_that_moved_back_is_no_update_any_more() -> None:
    one = with_status(refreshed("Manual"), moved(refreshed("Manual")))
    assert resolved_status(one, ANSWER, now=NOON).available_digest is None


def test_a_changed_reference_is_pinned_whatever_refresh_says() -> None:
    one = image(registry={"reference": "app:2", "refresh": {"interval": "1h"}}, status=PINNED)
    status = moved(one)
    assert (status.digest, status.reference, status.available_digest) == (OTHER, "app:2", None)


# --- the nodes


def test_nodes_are_counted_and_the_last_failures_named() -> None:
    reports = {
        "n1": ImageReport(DIGEST, "Ready"),
        "n2": ImageReport(DIGEST, "Pulling", done=10, total=100),
        "n3": ImageReport(DIGEST, "Queued"),
        "n4": ImageReport(DIGEST, "Failed", "DiskFull", "no room for the image"),
        "n9": ImageReport(DIGEST, "Ready"),
    }
    holders = Holders(frozenset({"n1", "n2", "n3", "n4", "n5"}), reports)
    status = image_status(image(status=PINNED), ImagePlan(), (), holders, now=NOON)
    assert status is not None
    assert status.nodes is not None
    assert (status.nodes.wanted, status.nodes.ready, status.nodes.pulling, status.nodes.failed) == (5, 1, 2, 1)
    assert status.nodes_ready == "1/5"
    assert [(one.node, one.reason) for one in status.failures] == [("n4", "DiskFull")]
    assert status.progress is not None
    assert (status.progress.done, status.progress.total) == (10, 100)
    assert truth(status, "Ready") == "False DiskFull"


@pytest.mark.parametrize(
    ("plan", "attempts", "ready", "stalled"),
    [
        (ImagePlan(), [], "Unknown Resolving", "False"),
        (ImagePlan(waits="waits for a ready Node"), [], "False NoNode", "False"),
        (ImagePlan(), [failed("n1")], "False RegistryUnreachable", "False"),
        (ImagePlan(), [failed("n2"), failed("n1", ago=9, code="NotFound")], "False RegistryUnreachable", "False"),
        (ImagePlan(), [failed("n1", code="NoMatchingPlatform")], "False NoMatchingPlatform", "True"),
    ],
)
def test_an_image_that_is_not_resolved_says_why(plan: ImagePlan, attempts: list[Attempt], ready: str, stalled: str) -> None:
    status = image_status(image(), plan, attempts, Holders(), now=NOON)
    assert truth(status, "Ready") == ready
    assert truth(status, "Stalled").startswith(stalled)


def test_an_old_pin_does_not_make_a_changed_reference_ready() -> None:
    one = image(registry={"reference": "app:2"}, status=PINNED)
    assert truth(image_status(one, ImagePlan(), [failed("n1", code="NotFound")], Holders(), now=NOON), "Ready") == "False NotFound"


def test_the_same_again_is_no_news_and_progress_can_wait() -> None:
    holders = Holders(frozenset({"n1"}), {"n1": ImageReport(DIGEST, "Pulling", done=1, total=9)})
    first = image_status(image(status=PINNED), ImagePlan(), (), holders, now=NOON)
    assert first is not None
    one = with_status(image(), first)
    assert image_status(one, ImagePlan(), (), holders, now=NOON + timedelta(minutes=1)) is None
    later = Holders(frozenset({"n1"}), {"n1": ImageReport(DIGEST, "Pulling", done=5, total=9)})
    further = image_status(one, ImagePlan(), (), later, now=NOON)
    assert further is not None
    assert write_at(one.status, further, first_seen=NOON) == NOON + timedelta(seconds=2)
    assert write_at(ImageStatus(), first, first_seen=NOON) == NOON


def test_prefetch_wants_the_nodes_that_can_run_it() -> None:
    one = image(registry={"reference": "app:1"}, prefetch={"nodeSelector": {"zone": "eu"}}, status=PINNED)
    swarm = [
        fleets.node("n1", arch="amd64", labels={"zone": "eu", "rack": "a"}),
        fleets.node("n2", arch="arm64", labels={"zone": "eu"}),
        fleets.node("n3", arch="amd64", labels={"zone": "us"}),
        fleets.node("n4", arch="amd64", labels={"zone": "eu"}, namespaces=["lab"]),
        fleets.node("n5", arch="x86_64", labels={"zone": "eu"}, ready=False),
        fleets.node("n6", arch="amd64", labels={"zone": "eu"}, deleting=True),
    ]
    assert wanted_by(one, swarm) == {"n1", "n5"}
    assert wanted_by(image(status=PINNED), swarm) == frozenset()
