"""The five kinds, parsed once at the door. crd.py makes the CRDs from the same models."""

from moorage_operator.api.condition import Condition, Conditions, find, is_true, stamped
from moorage_operator.api.container import TaskTemplate
from moorage_operator.api.image import Image, ImageSpec
from moorage_operator.api.image_status import ImageConfig, ImageStatus
from moorage_operator.api.meta import (
    API_VERSION,
    GROUP,
    NODE_FINALIZER,
    NODE_LABEL,
    ORPHAN_FINALIZER,
    SERVICE_LABEL,
    SLOT_LABEL,
    STACK_LABEL,
    TASK_FINALIZER,
    VERSION,
    KeyRef,
    LocalRef,
    ObjectMeta,
    OwnerReference,
    owner_reference,
)
from moorage_operator.api.node import Node, NodeSpec
from moorage_operator.api.node_status import NodeStatus
from moorage_operator.api.quantity import cpu_millis, cpu_text, file_mode, memory_bytes, memory_text, seconds
from moorage_operator.api.resource import Kind, Resource
from moorage_operator.api.scalars import rfc3339
from moorage_operator.api.schema import Model
from moorage_operator.api.service import Service, ServicePort, ServiceSpec, ServiceTemplate
from moorage_operator.api.service_status import ServiceStatus, UpdateStatus
from moorage_operator.api.stack import Stack, StackService, StackServiceStatus, StackSpec, StackStatus
from moorage_operator.api.task import ExitStatus, Task, TaskImage, TaskSpec, TaskStatus

KINDS: tuple[type[Resource], ...] = (Image, Service, Stack, Node, Task)

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "NODE_FINALIZER",
    "NODE_LABEL",
    "ORPHAN_FINALIZER",
    "SERVICE_LABEL",
    "SLOT_LABEL",
    "STACK_LABEL",
    "TASK_FINALIZER",
    "VERSION",
    "Condition",
    "Conditions",
    "ExitStatus",
    "Image",
    "ImageConfig",
    "ImageSpec",
    "ImageStatus",
    "KeyRef",
    "Kind",
    "LocalRef",
    "Model",
    "Node",
    "NodeSpec",
    "NodeStatus",
    "ObjectMeta",
    "OwnerReference",
    "Resource",
    "Service",
    "ServicePort",
    "ServiceSpec",
    "ServiceStatus",
    "ServiceTemplate",
    "Stack",
    "StackService",
    "StackServiceStatus",
    "StackSpec",
    "StackStatus",
    "Task",
    "TaskImage",
    "TaskSpec",
    "TaskStatus",
    "TaskTemplate",
    "UpdateStatus",
    "cpu_millis",
    "cpu_text",
    "file_mode",
    "find",
    "is_true",
    "memory_bytes",
    "memory_text",
    "owner_reference",
    "rfc3339",
    "seconds",
    "stamped",
]
