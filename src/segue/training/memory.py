"""What a training will hold in memory at its peak, and its refusal where the machine has less."""

from pathlib import Path

from segue.config import Config
from segue.errors import TrainingError
from segue.model.kernels import LOGIT_ENTRIES
from segue.model.losses import FEWEST_TARGETS, VECTOR_ENTRIES

FLOAT_BYTES = 4
# The interpreter, the framework and its compiled functions, as measured on an empty model.
BASE_BYTES = 600_000_000
# Arrays of [positions, width] that a block keeps for its backward pass or makes in it: the
# projections, norms and gates of both parts and their gradients.
BLOCK_ARRAYS, OUTER_ARRAYS = 24, 12
# Arrays of logits, and of the vectors that a block of targets with negatives of their own reads,
# that live at once: they, their slopes, and one in the making.
NEGATIVE_ARRAYS = 3
# Copies of the item table: itself, Adam's two moments, the best weights so far.
TABLE_COPIES = 4
# What is made beside them: by a step on the whole table its gradient, and the updated moments
# before they replace the old ones; else the next best weights.
MADE_BY_DENSE_STEP, MADE_BESIDE = 2, 1
# What averaging adds: the average, and the weights kept aside while it is validated.
AVERAGING_COPIES = 2


def estimated_bytes(
    num_items: int, config: Config, rows_per_batch: int, *, touches_rows: bool
) -> int:
    """An estimate of the training's memory at its peak, the log and its histories apart.

    Args:
        num_items: of the catalogue.
        config: model and loss.
        rows_per_batch: rows of max_length positions.
        touches_rows: a step updates only the rows of the items in its batch.
    """
    width, positions = config.model.width, rows_per_batch * config.model.max_length
    copies = TABLE_COPIES + (MADE_BESIDE if touches_rows else MADE_BY_DENSE_STEP)
    copies += AVERAGING_COPIES if config.training.averaging else 0
    table = (num_items + 1) * width * FLOAT_BYTES * copies
    arrays = BLOCK_ARRAYS * config.model.num_blocks + OUTER_ARRAYS
    states = positions * width * FLOAT_BYTES * arrays
    return BASE_BYTES + table + states + _loss_bytes(num_items, config, positions)


def refuse_too_large(
    num_items: int, config: Config, rows_per_batch: int, *, touches_rows: bool
) -> None:
    """Refuses a training that cannot fit, before anything of it is made.

    Raises:
        TrainingError: the estimate exceeds the memory that is free.
    """
    needed = estimated_bytes(num_items, config, rows_per_batch, touches_rows=touches_rows)
    free = available_bytes()
    if free is None or needed <= free:
        return
    raise TrainingError(
        f"training {num_items:,} items at width {config.model.width} needs about "
        f"{needed / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free; set "
        f"{', or '.join(_ways_out(config))}"
    )


def _ways_out(config: Config) -> list[str]:
    """Settings that need less."""
    ways = ["a smaller width or batch_size"]
    if config.training.averaging:
        ways.append("averaging=0")
    if config.loss.loss == "softmax":
        ways.append("a sampled loss (loss=sampled_softmax negatives_per=batch)")
    if config.loss.l2:
        ways.append("l2=0")
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


def _loss_bytes(num_items: int, config: Config, positions: int) -> int:
    if config.loss.loss == "softmax":
        return NEGATIVE_ARRAYS * FLOAT_BYTES * max(LOGIT_ENTRIES, FEWEST_TARGETS * num_items)
    logits = positions * config.loss.negatives
    vectors = 0 if config.loss.negatives_per != "target" else VECTOR_ENTRIES
    return NEGATIVE_ARRAYS * FLOAT_BYTES * (logits + min(vectors, logits * config.model.width))
