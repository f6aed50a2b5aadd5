"""The five kinds, parsed once at the door. crd.py makes the CRDs from the same models."""

from .condition import Condition, Conditions, find, is_true, stamped
from .container import TaskTemplate
from .image import Image, ImageSpec
from .image_status import ImageConfig, ImageStatus
from .meta import (
    API_VERSION,
    GROUP,
    NODE_FINALIZER,
    NODE_LABEL,
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
from .node import Node, NodeSpec
from .node_status import NodeStatus
from .quantity import cpu_millis, cpu_text, file_mode, memory_bytes, memory_text, seconds
from .resource import Kind, Resource
from .scalars import rfc3339
from .schema import Model
from .service import Service, ServicePort, ServiceSpec, ServiceTemplate
from .service_status import ServiceStatus, UpdateStatus
from .stack import Stack, StackService, StackServiceStatus, StackSpec, StackStatus
from .task import ExitStatus, Task, TaskImage, TaskSpec, TaskStatus

KINDS: tuple[type[Resource], ...] = (Image, Service, Stack, Node, Task)

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "NODE_FINALIZER",
    "NODE_LABEL",
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
