"""Where a training computes: on how many local devices, and on which rows of the item table.

A CPU's cores can be one device, or as many devices as there are cores. As one they share every
operation, and wait for each other between the small ones of a narrow model; as several, each works
through its rows alone (docs/log.md: a third less time at width 50, nothing from width 128 on).
Every device holds the whole state.
"""

import os

import keras

from segue.config import LOSSES, Config
from segue.model.kernels.device import is_accelerated, largest_divisor

# Items from which on only the rows of a batch are updated: by benchmarks/catalogue_growth.py that
# costs 15% more at 100,000 and 28% less at 1,000,000.
LAZY_ITEMS = 300_000
# Up to this width, and this size of the item table in numbers, a CPU's cores work apart.
NARROW_WIDTH, SMALL_TABLE = 64, 4_000_000
# JAX's own variable for how many devices a CPU is.
CPU_DEVICES = "JAX_NUM_CPU_DEVICES"
# Rows that a core needs to be busy by itself.
FEWEST_ROWS = 16


def touches_rows(config: Config, num_items: int) -> bool:
    """Whether a step updates only the item rows of its batch: on JAX, in a large catalogue.

    A loss that reads the whole table and averaged weights touch every row.
    """
    is_jax = keras.backend.backend() == "jax"
    is_of_few = LOSSES[config.loss.loss](config.loss).is_of_few_items
    return is_jax and is_of_few and not config.training.averaging and num_items >= LAZY_ITEMS


def prepare(config: Config, num_items: int, rows_per_batch: int) -> None:
    """Makes the CPU's cores devices where a training will use them; to be called before JAX starts.

    Where it has started, or the environment says how many there are, nothing changes.
    """
    if keras.backend.backend() != "jax":
        return
    import jax

    wanted = _wanted(config, num_items, rows_per_batch, num_cores(), is_cpu=True)
    if wanted == 1 or os.environ.get(CPU_DEVICES):
        return
    try:
        jax.config.update("jax_num_cpu_devices", wanted)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return  # it runs already


def num_devices(config: Config, num_items: int, rows_per_batch: int) -> int:
    """How many local devices share a batch: at most as many as there are, each as many rows.

    Args:
        config: The devices asked for, and what decides whether they pay.
        num_items: Of the catalogue.
        rows_per_batch: Rows of a batch.
    """
    if keras.backend.backend() != "jax":
        return 1
    import jax

    available = jax.local_device_count()
    is_cpu = not is_accelerated()
    return min(available, _wanted(config, num_items, rows_per_batch, available, is_cpu=is_cpu))


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _wanted(
    config: Config, num_items: int, rows_per_batch: int, available: int, *, is_cpu: bool
) -> int:
    """Devices that a training should have, of those available; looks at none of them."""
    asked = config.training.devices
    if touches_rows(config, num_items):
        return 1  # the rows that a batch touches are found on one device
    if asked is None:
        width = config.model.width
        is_narrow = width <= NARROW_WIDTH and num_items * width <= SMALL_TABLE
        asked = available
        if is_cpu:
            asked = min(available, rows_per_batch // FEWEST_ROWS) if is_narrow else 1
    return largest_divisor(rows_per_batch, asked)
