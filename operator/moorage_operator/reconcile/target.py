"""From a Node to the host behind it: address, pins and the key from its Secret."""

from __future__ import annotations

from moorage_operator.api import Node
from moorage_operator.errors import InvalidSpec
from moorage_operator.fleet.target import Credentials, Target
from moorage_operator.kube.object import Key
from moorage_operator.reconcile.world import World

_DEEPEST = 4


async def target_of(node: Node, world: World, *, depth: int = 0) -> Target:
    """Raises InvalidSpec naming what is missing: the Secret, its key, the Node to jump through."""
    ssh = node.spec.ssh
    credentials = await world.ssh_keys.of(ssh.key_secret_ref.name)
    return Target(
        host=ssh.host,
        port=ssh.port,
        user=ssh.user,
        credentials=credentials,
        host_keys=ssh.host_keys,
        policy=ssh.host_key_policy,
        become=ssh.become,
        adopt=node.spec.adopt,
        jump=await _jump(node, credentials, world, depth),
    )


async def _jump(node: Node, credentials: Credentials, world: World, depth: int) -> Target | None:
    jump = node.spec.ssh.jump
    if jump is None:
        return None
    if jump.node_ref is None:
        assert jump.host is not None
        return Target(host=jump.host, port=jump.port, user=jump.user, credentials=credentials, host_keys=jump.host_keys)
    through = world.nodes.get(Key("", jump.node_ref.name))
    if through is None:
        raise InvalidSpec(f"spec.ssh.jump names Node {jump.node_ref.name}, which does not exist: create it", reason="JumpNodeMissing")
    if depth >= _DEEPEST:
        raise InvalidSpec("spec.ssh.jump leads through more than four Nodes, or in a circle", reason="JumpTooDeep")
    return await target_of(through, world, depth=depth + 1)
