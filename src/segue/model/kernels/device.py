"""Which device the model computes on, and the block sizes that suit it."""

from dataclasses import dataclass

import keras

# Far below any score, yet finite: a row of nothing but this still has a soft maximum.
MASKED = -1e9


@dataclass(frozen=True)
class BlockSizes:
    """How much is worked on at once.

    Attributes:
        attention_queries: Rows of the causal triangle that one step of attention handles, at most;
            the keys beyond it are skipped.
        attention_scores: Scores that exist while a chunk of rows is worked through.
        logits: Logits of the full softmax that exist at once.
        fewest_targets: Targets whose logits exist at once, however large the catalogue: fewer would
            read the item table too often.
        negative_vectors: Numbers in the vectors of negatives that exist at once, where each target
            has its own.
    """

    attention_queries: int
    attention_scores: int
    logits: int
    fewest_targets: int
    negative_vectors: int


# What stays in a core's cache: 2.4 MB of scores, 8 MB of logits, 16 MB of vectors, in float32.
CPU_SIZES = BlockSizes(64, 600_000, 2_000_000, 32, 4_000_000)
# What fills a GPU with few launches: 1 GB of logits and of vectors.
ACCELERATOR_SIZES = BlockSizes(512, 64_000_000, 256_000_000, 512, 256_000_000)


def is_accelerated() -> bool:
    """Whether the backend computes on something else than a CPU."""
    if keras.backend.backend() == "torch":  # Keras lists no devices for PyTorch
        import torch

        return bool(torch.cuda.is_available())
    return not str(keras.distribution.list_devices()[0]).startswith("cpu")


def prefers_own_kernels() -> bool:
    """Whether what is tuned for a CPU pays: on XLA's CPU; PyTorch and accelerators fuse better."""
    # TensorFlow traces with open dimensions, which chunks and products with ones cannot have.
    return keras.backend.backend() == "jax" and not is_accelerated()


def block_sizes() -> BlockSizes:
    """The block sizes for the device that the model computes on."""
    return ACCELERATOR_SIZES if is_accelerated() else CPU_SIZES


def largest_divisor(total: int, limit: int) -> int:
    """The largest divisor of `total` that is at most `limit` (at least 1)."""
    return next(size for size in range(max(1, min(total, limit)), 0, -1) if total % size == 0)
