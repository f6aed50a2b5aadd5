"""What a Task without a node still needs of one: read from the Task itself, because its Service may ask for something else by now."""

from __future__ import annotations

from moorage_operator.api import Image, Service, Task
from moorage_operator.plan.image_source import home_constraint
from moorage_operator.plan.placement_demand import demand_of, own_volumes
from moorage_operator.plan.placement_needs import Home, ServiceKey, TaskNeeds
from moorage_operator.plan.slot_task import HOME_ANNOTATION
from moorage_operator.plan.task_container import compiled


def pending_needs(service: Service, task: Task, image: Image | None) -> TaskNeeds:
    container = compiled(task.spec.container)
    platform = image.status.platform if image is not None else None
    home = task.metadata.annotations.get(HOME_ANNOTATION)
    alone = service.spec.mode == "Replicated" and service.spec.replicas == 1
    return TaskNeeds(
        name=task.metadata.name,
        demand=demand_of(
            service.spec,
            ServiceKey(task.metadata.namespace, task.spec.service),
            task.spec.version,
            container,
            (platform,) if platform else (),
            constraints=() if image is None else home_constraint(image),
        ),
        replaces=task.spec.replaces,
        start_first=task.spec.handover == "StartFirst",
        home=Home(home, "the slot belongs there") if home else None,
        volumes=own_volumes(container, task.spec.service, task.spec.slot, alone=alone),
    )
