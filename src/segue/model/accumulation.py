"""A training step worked through a few rows at a time, so that what it computes stays in cache.

The arrays of [positions, width] that a batch of 14,000 positions keeps for its backward pass are
megabytes each and dozens; a step on all of them at once waits for memory. Their gradients, summed
over parts of the batch, are those of the whole.
"""

from typing import Any

import keras

from segue.model.kernels import largest_divisor

# Positions of a part: about what a core's cache holds of a block's arrays.
PART_POSITIONS = 2_000


def part_rows(rows: int, length: int, num_items: int) -> int:
    """How many of a batch's rows to train on at a time; all of them where parts would not pay.

    Every part adds its gradient of the whole item table: a catalogue larger than the batch would
    cost more than is saved. Parts of few rows keep no core busy.
    """
    most = PART_POSITIONS // length
    size = largest_divisor(rows, most)
    return size if num_items <= rows * length and 2 * size > most else rows


def train_step(model: Any, state: Any, data: Any, size: int) -> Any:
    """`JAXTrainer.train_step`, its gradient summed over parts of `size` rows.

    Dropout draws anew for each part.

    Args:
        model: a `SASRec` compiled without a loss and without metrics.
        state, data: as Keras' JAX trainer gives them, with sample weights; arrays of one dimension
            in y belong to every part.
        size: a divisor of the batch's rows.
    """
    import jax

    trainable, non_trainable, optimizer_state, metrics = state
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    shared = {name: each for name, each in y.items() if each.ndim == 1}
    own = {name: each for name, each in y.items() if each.ndim > 1}
    total = weights.sum()

    def part_loss(trainable: Any, non_trainable: Any, part: Any) -> Any:
        x, y, weights = part
        loss, (unscaled, _, non_trainable, _) = model.compute_loss_and_updates(
            trainable,
            non_trainable,
            metrics,
            x,
            {**y, **shared},
            weights,
            training=True,
            optimizer_variables=optimizer_state,
        )
        share = weights.sum() / jax.numpy.maximum(total, 1e-9)
        return loss * share, (unscaled * share, non_trainable)

    slopes_of = jax.value_and_grad(part_loss, has_aux=True)

    def add_part(carry: Any, part: Any) -> tuple[Any, None]:
        loss, slopes, non_trainable = carry
        (_, (more, non_trainable)), more_slopes = slopes_of(trainable, non_trainable, part)
        return (loss + more, jax.tree.map(jax.numpy.add, slopes, more_slopes), non_trainable), None

    parts = jax.tree.map(lambda each: each.reshape(-1, size, *each.shape[1:]), (x, own, weights))
    start = (jax.numpy.zeros(()), jax.tree.map(jax.numpy.zeros_like, trainable), non_trainable)
    (loss, slopes, non_trainable), _ = jax.lax.scan(add_part, start, parts)
    trainable, optimizer_state = model.optimizer.stateless_apply(optimizer_state, slopes, trainable)
    logs, metrics = model._update_metrics_variables(metrics, loss, x, y, None, weights)
    return logs, (trainable, non_trainable, optimizer_state, metrics)
