"""An Image: have a node resolve it, pin what it answers, count who has it. Also the Image a Service's bare `image:` owns."""

from __future__ import annotations

from datetime import datetime

from moorage_operator.api import Image, Service, owner_reference
from moorage_operator.errors import AgentError, AlreadyExists, MoorageError, NodeUnavailable
from moorage_operator.kube.object import Key, deleting, uid_of
from moorage_operator.kube.resource import IMAGES
from moorage_operator.plan.image import Attempt, Resolve, plan_image, wanted_by
from moorage_operator.plan.image_source import owned_image_name
from moorage_operator.plan.image_status import Holders, image_status, resolved_status, write_at
from moorage_operator.plan.node_contact import connecting
from moorage_operator.reconcile import indexes
from moorage_operator.reconcile.world import World, key_of_model, seconds_until

COUNT_AGAIN_S = 2.0


async def reconcile_image(key: Key, world: World) -> float | None:
    image = world.images.get(key)
    if image is None or image.metadata.deletion_timestamp is not None:
        return None
    attempts = world.image_news.tries(image)
    plan = plan_image(image, world.placer.view.fleet().nodes.values(), attempts, now=world.now())
    known = image
    if plan.resolve is not None:
        known = await _resolve(plan.resolve, image, attempts, world)
        plan = plan_image(known, world.placer.view.fleet().nodes.values(), attempts, now=world.now())
    holders = _holders(known, world)
    status = image_status(known, plan, attempts, holders, now=world.now())
    pause = seconds_until(plan.again_at, world.now())
    if status is None and known is image:
        return pause
    since = world.image_news.unwritten_since.setdefault(image.metadata.uid, world.now())
    at = write_at(image.status, status or known.status, first_seen=since)
    wait = seconds_until(at, world.now()) or 0.0
    if wait > 0:
        return wait
    if at > since and _unheard(holders, world):
        return COUNT_AGAIN_S
    world.image_news.unwritten_since.pop(image.metadata.uid, None)
    world.write_status(IMAGES, image, status or known.status)
    return pause


async def _resolve(step: Resolve, image: Image, attempts: list[Attempt], world: World) -> Image:
    """The image with what the node answered, or with one more failure among the attempts."""
    node = world.nodes.get(Key("", step.node))
    if node is None:
        return image
    try:
        with world.lent(node.metadata.uid, step.source):
            answer = await world.fleet.session(node.metadata.uid).resolve(step.source)
    except (AgentError, NodeUnavailable) as error:
        attempts.append(_attempt(step.node, error, world.now()))
        return image
    attempts.clear()
    return image.model_copy(update={"status": resolved_status(image, answer, now=world.now())})


def _attempt(node: str, error: MoorageError, now: datetime) -> Attempt:
    """Only what a registry asked for is waited for: of anything else the agent cannot know how soon a person mends it."""
    asked_s = error.retry_after_s if isinstance(error, AgentError) and error.reason == "RateLimited" else None
    return Attempt(node, now, error.reason, str(error), asked_s)


def _unheard(holders: Holders, world: World) -> bool:
    """Just begun, this process has not heard yet from all who have the image: to count them now would be two writes for each Image."""
    silent = [world.nodes.raw.get(Key("", name)) for name in holders.wanted - world.image_news.heard]
    links = [world.fleet.link(uid_of(node)) for node in silent if node is not None]
    return any(connecting(link) or (link is not None and link.connected) for link in links)


def _holders(image: Image, world: World) -> Holders:
    digest = image.status.digest
    if digest is None:
        return Holders()
    tasks = world.tasks.raw.by(indexes.TASK_IMAGE, f"{image.metadata.namespace}/{image.metadata.name}")
    here = [task for task in tasks if not deleting(task) and task["spec"]["image"].get("digest") == digest]
    users = {task["spec"]["nodeName"] for task in here if task["spec"].get("nodeName")}
    wanted = wanted_by(image, world.placer.view.fleet().nodes.values()) | users
    return Holders(frozenset(wanted), world.image_news.held.get(digest))


async def image_of_service(service: Service, world: World, *, may_create: bool = True) -> Image | None:
    """The Image that task.imageRef names, or the one that task.image owns: made when it is not there yet."""
    task, namespace = service.spec.task, service.metadata.namespace
    if task.image_ref is not None:
        return world.images.get(Key(namespace, task.image_ref.name))
    if task.image is None:
        return None
    key = Key(namespace, owned_image_name(service.metadata.name, task.image))
    found = world.images.get(key)
    if found is None and may_create:
        try:
            world.images.raw.put(await world.api.create(IMAGES, owned_image(service, key, task.image)))
        except AlreadyExists:
            world.images.raw.put(await world.api.get(IMAGES, key))
        found = world.images.get(key)
    return found


async def drop_unused_images(service: Service, world: World) -> None:
    """Images of references the Service no longer has, and that no Task of it runs any more."""
    task, used = service.spec.task, set[str]()
    if task.image is not None:
        used.add(owned_image_name(service.metadata.name, task.image))
    used |= {
        each.spec.image.name
        for each in world.tasks.by(indexes.SERVICE, str(key_of_model(service)))
        if each.spec.image and each.spec.image.name
    }
    for image in world.images.by(indexes.OWNER, service.metadata.uid):
        if image.metadata.name not in used and image.metadata.deletion_timestamp is None:
            key = key_of_model(image)
            if await world.api.delete(IMAGES, key, uid=image.metadata.uid) is None:
                world.images.raw.remove(key, uid=image.metadata.uid)


def owned_image(service: Service, key: Key, reference: str) -> dict[str, object]:
    return {
        "metadata": {
            "namespace": key.namespace,
            "name": key.name,
            "labels": {"moorage.dev/service": service.metadata.name},
            "ownerReferences": [owner_reference("Service", service.metadata)],
        },
        "spec": {"registry": {"reference": reference}},
    }
