"""The learning rate over a training."""

import keras

from segue.config import TrainingConfig

# The share of the learning rate that a cosine schedule ends with.
LAST_RATE = 0.02


def learning_rate(
    config: TrainingConfig, num_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """It rises over the warm-up, then stays or falls by a cosine.

    The warm-up takes a tenth of all steps at most, so that a short training has one in proportion.
    """
    warmup = min(config.warmup_steps, num_steps // 10)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=max(1, num_steps - warmup),
        alpha=LAST_RATE if config.schedule == "cosine" else 1.0,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
