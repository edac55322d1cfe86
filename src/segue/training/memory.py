"""What a training will hold in memory at its peak, and its refusal where the machine has less."""

from pathlib import Path

from segue.config import LOSSES, Config
from segue.errors import TrainingError
from segue.training.placement import Placement
from segue.training.plan import Plan

FLOAT_BYTES = 4
# The interpreter, the framework and its compiled functions, as measured on an empty model.
BASE_BYTES = 600_000_000
# Copies of the item table: itself, Adam's two moments, the best weights so far.
TABLE_COPIES = 4
# What is made in addition: by a step on the whole table its gradient, and the updated moments
# before they replace the old ones; else the next best weights.
MADE_BY_DENSE_STEP, MADE_BESIDE = 2, 1
# What averaging adds: the average, and the weights kept aside while it is validated.
AVERAGING_COPIES = 2
# What each further device holds: the table, its moments and its gradient.
COPIES_PER_DEVICE = 4


def estimated_bytes(num_items: int, plan: Plan, placement: Placement) -> int:
    """An estimate of the training's memory at its peak, the log and its histories apart.

    Args:
        num_items: of the catalogue.
        plan: model, loss and batches.
        placement: which rows a step updates, and how many devices hold them.
    """
    config = plan.config
    width, positions = config.model.width, plan.positions_per_batch
    copies = TABLE_COPIES + (MADE_BESIDE if placement.touches_rows else MADE_BY_DENSE_STEP)
    copies += AVERAGING_COPIES if config.training.averaging else 0
    copies += COPIES_PER_DEVICE * (placement.num_devices - 1)
    table = (num_items + 1) * width * FLOAT_BYTES * copies
    states = positions * config.model.floats_per_position() * FLOAT_BYTES
    loss = int(LOSSES[config.loss.loss](config.loss).bytes(num_items, positions, width))
    return BASE_BYTES + table + states + loss


def refuse_too_large(num_items: int, plan: Plan, placement: Placement) -> None:
    """Refuses a training that cannot fit, before anything of it is made.

    Raises:
        TrainingError: the estimate exceeds the memory that is free.
    """
    needed = estimated_bytes(num_items, plan, placement)
    free = available_bytes()
    if free is None or needed <= free:
        return
    raise TrainingError(
        f"training {num_items:,} items at width {plan.config.model.width} needs about "
        f"{needed / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free; set "
        f"{', or '.join(_ways_out(plan.config))}"
    )


def _ways_out(config: Config) -> list[str]:
    """Settings that need less."""
    ways = ["a smaller width or batch_size"]
    if config.training.averaging:
        ways.append("averaging=0")
    if config.loss.l2:
        ways.append("l2=0")
    elif not LOSSES[config.loss.loss](config.loss).is_of_few_items:
        ways.append("a sampled loss (loss=sampled_softmax negatives_per=batch)")
    return ways


def available_bytes(
    proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Memory that can be had without swapping, the container's limit observed; None: unknown."""
    limits = []
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    except OSError:
        pass
    try:
        most = (cgroup / "memory.max").read_text().strip()
        if most != "max":
            used = int((cgroup / "memory.current").read_text()) - _idle_cache(cgroup)
            limits.append(int(most) - used)
    except OSError:
        pass
    return min(limits, default=None)


def _idle_cache(cgroup: Path) -> int:
    """Bytes of files that the container's use counts and that give way when memory is wanted."""
    for line in (cgroup / "memory.stat").read_text().splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0
