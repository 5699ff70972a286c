"""Layouts: how an ensemble and its batches lie on several devices, by JAX's own sharding.

Members are split over devices first, which need not communicate then; what devices are left over
split each member's batch, and sum its gradients. Programs are those of one device: the compiler
divides them along how their arguments lie.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all, process_allgather
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding


class Layout(NamedTuple):
    """Where arrays go; None: where JAX puts them, on its first device.

    Attributes:
        of_members: arrays with a leading axis of members.
        of_steps: rows of indices, (members, steps, batch).
        of_all: what every device has.
    """

    of_members: NamedSharding | None = None
    of_steps: NamedSharding | None = None
    of_all: NamedSharding | None = None


def lay_out(n_members: int, batch_size: int, devices: Sequence[Any]) -> Layout:
    """Split members over devices, and their batches over those that are left over.

    Args:
        n_members: how many models are trained together.
        batch_size: images per step of each.
        devices: the devices.

    Raises:
        ValueError: if a batch cannot be split evenly.
    """
    if len(devices) == 1:
        return Layout()
    for_members, for_batch = split(n_members, batch_size, len(devices))
    mesh = Mesh(np.array(devices).reshape(for_members, for_batch), ("members", "batch"))

    def along(*axes: str | None) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(*axes))

    return Layout(along("members"), along("members", None, "batch"), along())


def split(n_members: int, batch_size: int, n_devices: int) -> tuple[int, int]:
    """Say over how many devices members are split, and over how many each batch.

    Raises:
        ValueError: if a batch cannot be split evenly.
    """
    for_members = math.gcd(n_members, n_devices)
    for_batch = n_devices // for_members
    if batch_size % for_batch:
        raise ValueError(f"a batch of {batch_size} cannot be split over {for_batch} devices")
    return for_members, for_batch


def place(tree: Any, sharding: Sharding | None) -> Any:
    """Put the arrays of a tree where they go; what is there already stays.

    Of several processes each gives the same arrays, and puts its part of them.
    """
    arrays, static = eqx.partition(tree, _is_array)
    if sharding is None or sharding.is_fully_addressable:
        return eqx.combine(jax.device_put(arrays, sharding), static)
    return eqx.combine(jax.tree.map(lambda leaf: _place_part(leaf, sharding), arrays), static)


def wait_for_all() -> None:
    """Wait until all processes have come here, however long they take."""
    broadcast_one_to_all(np.zeros((), np.int32))


def introduce(layout: Layout) -> None:
    """Let the devices that will sum and gather together find each other, if processes are several.

    Gloo connects a group of devices when it is first needed, and gives up half a minute after the
    first of them wants that: too little for who still compiles.
    """
    rows = layout.of_steps
    if rows is None or rows.is_fully_addressable:
        return
    wait_for_all()
    n_each = rows.mesh.shape  # of members, and of parts of a batch
    ones = place(np.ones((n_each["members"], 1, n_each["batch"]), np.int32), rows)
    fetch(jax.jit(lambda each: each.sum((1, 2)), out_shardings=layout.of_members)(ones))


def fetch(tree: Any) -> Any:
    """Bring the arrays of a tree to the host; all processes that hold a part call it together."""
    return jax.device_get(jax.tree.map(_gather, tree))


def _place_part(leaf: Any, sharding: Sharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def _gather(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return process_allgather(leaf, tiled=True)
    return leaf


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)
