"""Training that reads, differentiates and updates only the rows of the item table it touches.

A dense step reads and writes the whole item table and both of Adam's moments, whatever the batch
holds: its cost grows with the catalogue. Here a step gathers the rows of the items in its batch,
trains on them as if they were the catalogue, and scatters the updated rows back in place.
"""

from dataclasses import dataclass
from typing import Any

import keras

from segue.model.kernels import Tensor


@dataclass(frozen=True, eq=False)
class TouchedRows:
    """The gradient of a table, of which all other rows are zero.

    Attributes:
        ids: int32[n], ascending and distinct; those beyond the table's rows stand for none.
        slopes: float[n, width], the gradient of each of these rows.
    """

    ids: Tensor
    slopes: Tensor


@keras.saving.register_keras_serializable(package="segue")
class LazyAdam(keras.optimizers.Adam):
    """Adam that leaves alone the rows, moments included, of a table that a step does not touch.

    The rows that are touched are updated as in Adam (Kingma & Ba, 2015, algorithm 1), with the
    step count of the whole training; the moments of the others do not decay meanwhile, which is
    where it departs from Adam. Gradients that are arrays are updated by Adam itself.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Args: gradient: an array of the variable's shape, or `TouchedRows` of it (JAX only)."""
        if not isinstance(gradient, TouchedRows):
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        step = keras.ops.cast(self.iterations + 1, variable.dtype)
        first = 1 - keras.ops.power(keras.ops.cast(self.beta_1, variable.dtype), step)
        second = 1 - keras.ops.power(keras.ops.cast(self.beta_2, variable.dtype), step)
        rate = keras.ops.cast(learning_rate, variable.dtype) * keras.ops.sqrt(second) / first

        slopes, ids = gradient.slopes, gradient.ids
        means, squares = _rows(momentum, ids), _rows(velocity, ids)
        means = means + (slopes - means) * (1 - self.beta_1)
        squares = squares + (keras.ops.square(slopes) - squares) * (1 - self.beta_2)
        change = rate * means / (keras.ops.sqrt(squares) + self.epsilon)
        _put_rows(momentum, ids, means)
        _put_rows(velocity, ids, squares)
        _put_rows(variable, ids, _rows(variable, ids) - change)


def train_step(model: Any, state: Any, data: Any) -> Any:
    """`JAXTrainer.train_step` on the rows that the batch touches.

    Args:
        model: a `SASRec` compiled with `LazyAdam`.
        state, data: as Keras' JAX trainer gives them.
    """
    import jax

    trainable, non_trainable, optimizer_state, metrics = state
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    table_at = _place(model.trainable_variables, model.item_embedding.table)
    table = trainable[table_at]
    ids, local_x, local_y = _local(x, y, table.shape[0])
    if model.log_expected is not None:
        log_expected = non_trainable[_place(model.non_trainable_variables, model.log_expected)]
        local_y["log_expected"] = log_expected.at[ids].get(mode="clip")

    def loss_of(others: Any, rows: Tensor) -> Any:
        return model.compute_loss_and_updates(
            [*others[:table_at], table, *others[table_at:]],
            non_trainable,
            metrics,
            {**local_x, "item_table": rows},
            local_y,
            weights,
            training=True,
            optimizer_variables=optimizer_state,
        )

    others = [*trainable[:table_at], *trainable[table_at + 1 :]]
    rows = table.at[ids].get(mode="clip")
    slopes_of = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
    (_, aux), (slopes, row_slopes) = slopes_of(others, rows)
    loss, predictions, non_trainable, metrics = aux
    slopes = [*slopes[:table_at], TouchedRows(ids, row_slopes), *slopes[table_at:]]
    trainable, optimizer_state = model.optimizer.stateless_apply(optimizer_state, slopes, trainable)
    logs, metrics = model._update_metrics_variables(metrics, loss, x, y, predictions, weights)
    return logs, (trainable, non_trainable, optimizer_state, metrics)


def _local(
    x: dict[str, Tensor], y: dict[str, Tensor], num_rows: int
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The distinct ids of a batch, ascending from 0, and the batch counted in them.

    Ids beyond the table fill up `ids`, whose size depends on the batch's shape alone.
    """
    import jax.numpy as jnp

    names = [name for name in ("positive_sequence", "negative_sequence") if name in y]
    parts = [x["item_ids"], *(y[name] for name in names)]
    flat = jnp.concatenate([jnp.zeros(1, jnp.int32), *(each.reshape(-1) for each in parts)])
    size = min(flat.size, num_rows)
    ids, places = jnp.unique(flat, return_inverse=True, size=size, fill_value=num_rows)
    ids = jnp.where(ids == num_rows, num_rows + jnp.arange(size, dtype=ids.dtype), ids)
    places = places.astype(jnp.int32)[1:]
    local, start = [], 0
    for each in parts:
        local.append(places[start : start + each.size].reshape(each.shape))
        start += each.size
    local_y = {**y, **dict(zip(names, local[1:], strict=True))}
    return ids, {**x, "item_ids": local[0]}, local_y


def _place(variables: list[Any], wanted: Any) -> int:
    return next(at for at, each in enumerate(variables) if each is wanted)


def _rows(variable: Any, ids: Tensor) -> Tensor:
    return variable.value.at[ids].get(mode="clip", indices_are_sorted=True)


def _put_rows(variable: Any, ids: Tensor, rows: Tensor) -> None:
    """In place where the variable's buffer is donated, as in Keras' training function."""
    variable.assign(
        variable.value.at[ids].set(rows, mode="drop", indices_are_sorted=True, unique_indices=True)
    )
