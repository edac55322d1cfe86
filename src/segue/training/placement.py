"""Where a training computes: on how many local devices, and on which rows of the item table.

A CPU's cores can be one device, or as many devices as there are cores. As one they share every
operation, and wait for each other between the small ones of a narrow model; as several, each works
through its rows alone (docs/log.md: a third less time at width 50, nothing from width 128 on).
Every device holds the whole state.
"""

import os
from dataclasses import dataclass

import keras

from segue.config import LOSSES, Config
from segue.machine import usable_cores
from segue.model.kernels.device import is_accelerated, largest_divisor, prefers_own_kernels
from segue.training.plan import Plan

# Items from which on only the rows of a batch are updated: by benchmarks/catalogue_growth.py that
# costs 15% more at 100,000 and 28% less at 1,000,000.
LAZY_ITEMS = 300_000
# Up to this width, and this size of the item table in numbers, a CPU's cores work apart.
NARROW_WIDTH, SMALL_TABLE = 64, 4_000_000
# JAX's own variable for how many devices a CPU is.
CPU_DEVICES = "JAX_NUM_CPU_DEVICES"
# Rows that a core needs to be busy by itself.
FEWEST_ROWS = 16
# Positions of a part of a batch: about what a core's cache holds of a block's arrays.
PART_POSITIONS = 2_000


@dataclass(frozen=True)
class Placement:
    """How a step goes about a batch.

    Attributes:
        touches_rows: It reads and updates only the item rows that the batch names.
        num_devices: How many devices share the batch's rows.
        part_rows: How many rows a device works on at a time.
    """

    touches_rows: bool
    num_devices: int
    part_rows: int


def placement_of(config: Config, num_items: int, plan: Plan) -> Placement:
    """What pays on this machine; starts JAX.

    Args:
        config: The devices asked for, and what decides whether they pay.
        num_items: Of the catalogue.
        plan: The rows of a batch.
    """
    if keras.backend.backend() != "jax":
        return Placement(False, 1, plan.rows_per_batch)
    import jax

    available, is_cpu = jax.local_device_count(), not is_accelerated()
    devices = _wanted_devices(config, num_items, plan, available, is_cpu=is_cpu)
    rows = plan.rows_per_batch // devices
    size = rows
    if prefers_own_kernels():
        size = part_rows(rows, config.model.max_length, num_items)
    return Placement(_touches_rows(config, num_items), devices, size)


def prepare(config: Config, num_items: int, plan: Plan) -> None:
    """Makes the CPU's cores devices where a training will use them; to be called before JAX starts.

    Where it has started, or the environment says how many there are, nothing changes.
    """
    if keras.backend.backend() != "jax" or os.environ.get(CPU_DEVICES):
        return
    import jax

    wanted = _wanted_devices(config, num_items, plan, usable_cores(), is_cpu=True)
    if wanted == 1:
        return
    try:
        jax.config.update("jax_num_cpu_devices", wanted)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return  # it runs already


def part_rows(rows: int, length: int, num_items: int) -> int:
    """How many of a CPU's rows to train on at a time; all of them where parts would not pay.

    Every part adds its gradient of the whole item table: a catalogue larger than the batch would
    cost more than is saved. Parts of few rows keep no core busy.
    """
    most = PART_POSITIONS // length
    size = largest_divisor(rows, most)
    return size if num_items <= rows * length and 2 * size > most else rows


def _touches_rows(config: Config, num_items: int) -> bool:
    """Whether only the rows of a batch are updated: in a large catalogue.

    A loss that reads the whole table and averaged weights touch every row.
    """
    is_of_few = LOSSES[config.loss.loss](config.loss).is_of_few_items
    return bool(is_of_few) and not config.training.averaging and num_items >= LAZY_ITEMS


def _wanted_devices(
    config: Config, num_items: int, plan: Plan, available: int, *, is_cpu: bool
) -> int:
    """Devices that a training should have, of those available; looks at none of them."""
    if _touches_rows(config, num_items):
        return 1  # the rows that a batch touches are found on one device
    asked = config.training.devices or available
    if config.training.devices is None and is_cpu:
        width, rows = config.model.width, plan.rows_per_batch
        is_narrow = width <= NARROW_WIDTH and num_items * width <= SMALL_TABLE
        asked = rows // FEWEST_ROWS if is_narrow else 1
    return largest_divisor(plan.rows_per_batch, min(asked, available))
