"""The step on JAX: a pure function of (parameters, optimizer state, batch), compiled as one.

It takes one of three forms. *Whole*: the gradient of the batch at once. *In parts*: the gradients
of a few rows after another, summed, so that what they compute stays in a core's cache. *On touched
rows*: for large catalogues, only the rows of the item table that the batch names are read,
differentiated and updated.

On several devices each takes a share of the batch's rows, and the gradients are summed:

    device 0   rows 0 .. n/2    parameters -> gradient \\
                                                        sum -> the same update on each
    device 1   rows n/2 .. n    parameters -> gradient /
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from segue.config import Config
from segue.model.sequence_model import SequenceModel
from segue.training.adam import Adam, AdamState, TouchedRows, rows_of
from segue.training.batches import Batch
from segue.training.placement import Placement, placement_of
from segue.training.plan import Plan
from segue.training.steps.protocol import Array
from segue.training.steps.schedule import learning_rate

AXIS = "devices"
# Arrays that every device holds whole, and arrays whose rows the devices share.
WHOLE: Any = Spec()  # type: ignore[no-untyped-call]
BY_ROW: Any = Spec(AXIS)  # type: ignore[no-untyped-call]
# Keeps the dropout of devices apart: odd, so that no two of a few billion share a seed.
DEVICE_STRIDE = 0x9E3779B1

Arrays = dict[str, jax.Array]
Slopes = dict[str, Any]


class State(NamedTuple):
    """What a step takes and gives.

    Attributes:
        weights: The trainable arrays, by their variables' numbers.
        others: The rest: seeds, and what is never trained.
        adam: The optimizer's.
    """

    weights: Arrays
    others: Arrays
    adam: AdamState


class Pieces(NamedTuple):
    """A batch as the compiled step takes it.

    Attributes:
        inputs, targets, weights: As in `Batch`, without what all rows share.
        shared: Targets of one dimension, which all rows share: a batch's negatives.
    """

    inputs: Any
    targets: Any
    weights: Any
    shared: Any


class JaxStep:
    """`Step` on JAX."""

    def __init__(
        self,
        model: SequenceModel,
        config: Config,
        plan: Plan,
        placement: Placement | None = None,
    ) -> None:
        """Takes the model's variables as the first state.

        Args:
            model: To be trained.
            config: The optimizer's settings.
            plan: The rows of a batch, and how many steps there are.
            placement: How a batch is worked on; None: as pays on this machine.
        """
        self._placement = placement or placement_of(config, model.num_items, plan)
        self._model = model
        # By number: names of Keras' own count up with every model of a process.
        self._trainable = _numbered(model.trainable_variables)
        self._untrained = _numbered(model.non_trainable_variables, len(self._trainable))
        self._adam = Adam(
            learning_rate(config.training, plan.num_steps),
            config.training.beta_2,
            config.training.averaging,
        )
        self._num_devices = self._placement.num_devices
        self._mesh = Mesh(np.array(jax.local_devices()[: self._num_devices]), (AXIS,))
        weights = {name: variable.value for name, variable in self._trainable.items()}
        others = {name: variable.value for name, variable in self._untrained.items()}
        start = State(weights, others, self._adam.start(weights))
        # Copied: a step gives its buffers away, and these are the model's.
        self._state = self._placed(jax.tree.map(jnp.copy, start))
        self._step = self._over_mesh()

    def run(self, batch: Batch) -> jax.Array:
        """As `Step.run`."""
        loss: jax.Array
        self._state, loss = self._step(self._state, self._pieces(batch))
        return loss

    def compiled(self, batch: Batch) -> jax.stages.Compiled:
        """What runs on batches of that shape, to be looked into: its operations and their cost."""
        return self._step.lower(self._state, self._pieces(batch)).compile()

    def to_model(self, *, averaged: bool) -> None:
        """As `Step.to_model`."""
        averages = self._state.adam.averages if averaged else {}
        for name, variable in self._trainable.items():
            variable.assign(_of_one_device(averages.get(name, self._state.weights[name])))
        for name, variable in self._untrained.items():
            variable.assign(_of_one_device(self._state.others[name]))

    def state(self) -> Mapping[str, Array]:
        """As `Step.state`."""
        return {name: np.asarray(_of_one_device(array)) for name, array in self._leaves().items()}

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """As `Step.shapes`."""
        return {name: array.shape for name, array in self._leaves().items()}

    def restore(self, read: Callable[[str], Array]) -> None:
        """As `Step.restore`; an array of the old state goes before the next is read."""
        leaves, tree = jax.tree.flatten(self._state)
        names = list(self._leaves())
        for place, name in enumerate(names):
            leaves[place] = self._placed(jnp.array(read(name)))
        self._state = jax.tree.unflatten(tree, leaves)

    def _pieces(self, batch: Batch) -> Pieces:
        """The batch's arrays, each device's rows on that device."""
        shared = {name: array for name, array in batch.targets.items() if array.ndim == 1}
        own = {name: array for name, array in batch.targets.items() if array.ndim > 1}
        pieces = Pieces(batch.inputs, own, batch.weights, shared)
        return jax.device_put(pieces, self._shardings()) if self._num_devices > 1 else pieces

    def _leaves(self) -> dict[str, jax.Array]:
        paths, _ = jax.tree_util.tree_flatten_with_path(self._state)
        return {jax.tree_util.keystr(path): array for path, array in paths}

    def _placed(self, arrays: Any) -> Any:
        """The arrays on each of the mesh's devices."""
        return jax.device_put(arrays, NamedSharding(self._mesh, WHOLE))

    def _shardings(self) -> Any:
        rows, whole = NamedSharding(self._mesh, BY_ROW), NamedSharding(self._mesh, WHOLE)
        return Pieces(rows, rows, rows, whole)

    def _over_mesh(self) -> jax.stages.Wrapped:
        """The step over the mesh, its state's buffers given away."""
        step = self._pure_step
        if self._num_devices > 1:
            step = jax.shard_map(
                step,
                mesh=self._mesh,
                in_specs=(WHOLE, Pieces(BY_ROW, BY_ROW, BY_ROW, WHOLE)),
                out_specs=(WHOLE, WHOLE),
                check_vma=False,
            )
        return jax.jit(step, donate_argnums=0)

    def _pure_step(self, state: State, batch: Pieces) -> tuple[State, jax.Array]:
        """The state after a batch, and the batch's loss; on each device for its rows."""
        total = self._summed(batch.weights.sum())
        others = self._seeds_of_device(state.others)
        if self._placement.touches_rows:
            loss, slopes, others = self._on_touched_rows(state.weights, others, batch)
        else:
            loss, slopes, others = self._in_parts(state.weights, others, batch, total)
        loss, slopes = self._summed((loss, slopes))
        weights, adam = self._adam.updated(state.weights, slopes, state.adam)
        return State(weights, self._seeds_of_device(others, -1), adam), loss

    def _in_parts(
        self, weights: Arrays, others: Arrays, batch: Pieces, total: jax.Array
    ) -> tuple[jax.Array, Slopes, Arrays]:
        """Loss and gradient summed over parts of the batch's rows; dropout draws again for each."""

        def part_loss(weights: Arrays, others: Arrays, part: Pieces) -> Any:
            loss, others = self._loss(weights, others, part)
            # Each part's loss is an average over its own targets.
            return loss * part.weights.sum() / jnp.maximum(total, 1e-9), others

        slopes_of = jax.value_and_grad(part_loss, has_aux=True)
        rows = batch.weights.shape[0]
        if self._placement.part_rows >= rows:
            (loss, others), slopes = slopes_of(weights, others, batch)
            return loss, slopes, others

        def add_part(carry: Any, part: Any) -> tuple[Any, None]:
            loss, slopes, others = carry
            inputs, targets, part_weights = part
            pieces = Pieces(inputs, targets, part_weights, batch.shared)
            (more, others), more_slopes = slopes_of(weights, others, pieces)
            return (loss + more, jax.tree.map(jnp.add, slopes, more_slopes), others), None

        parts = jax.tree.map(
            lambda array: array.reshape(-1, self._placement.part_rows, *array.shape[1:]), batch[:3]
        )
        start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, weights), others)
        (loss, slopes, others), _ = jax.lax.scan(add_part, start, parts)
        return loss, slopes, others

    def _on_touched_rows(
        self, weights: Arrays, others: Arrays, batch: Pieces
    ) -> tuple[jax.Array, Slopes, Arrays]:
        """Loss and gradient, of the tower's arrays for the rows that the batch names alone."""
        arrays = self._model.tower.arrays()
        numbers = {name: self._number_of(variable) for name, variable in arrays.items()}
        ids, batch = in_touched_rows(batch, self._model.num_items + 1)
        if self._model.log_expected is not None:
            expected = others[self._number_of(self._model.log_expected)]
            shared = {**batch.shared, "log_expected": rows_of(expected, ids)}
            batch = batch._replace(shared=shared)
        everything = {**weights, **others}
        touched = {name: rows_of(everything[number], ids) for name, number in numbers.items()}
        trained = {name: rows for name, rows in touched.items() if numbers[name] in weights}
        dense = {
            number: array for number, array in weights.items() if number not in numbers.values()
        }

        def loss_of(dense: Arrays, trained: Arrays) -> Any:
            return self._loss({**weights, **dense}, others, batch, {**touched, **trained})

        slopes_of = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        (loss, others), (slopes, row_slopes) = slopes_of(dense, trained)
        of_rows = {numbers[name]: TouchedRows(ids, slope) for name, slope in row_slopes.items()}
        return loss, {**slopes, **of_rows}, others

    def _loss(
        self, weights: Arrays, others: Arrays, batch: Pieces, arrays: Arrays | None = None
    ) -> tuple[jax.Array, Arrays]:
        """The batch's loss, and the seeds and the like after it."""
        variables = {**self._trainable, **self._untrained}
        values = {**weights, **others}
        mapping = [(variable, values[name]) for name, variable in variables.items()]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            loss = self._model.loss_of(
                batch.inputs,
                {**batch.targets, **batch.shared},
                batch.weights,
                training=True,
                arrays=arrays,
            )
        after = {
            name: scope.get_current_value(variable) for name, variable in self._untrained.items()
        }
        return loss, {name: others[name] if new is None else new for name, new in after.items()}

    def _number_of(self, wanted: Any) -> str:
        variables = {**self._trainable, **self._untrained}
        return next(name for name, variable in variables.items() if variable is wanted)

    def _summed(self, values: Any) -> Any:
        if self._num_devices == 1:
            return values
        return jax.lax.psum(values, AXIS)  # type: ignore[no-untyped-call]

    def _seeds_of_device(self, others: Arrays, sign: int = 1) -> Arrays:
        """The seeds of dropout moved by a stride for each device, or with -1 moved back."""
        if self._num_devices == 1:
            return others
        place = jax.lax.axis_index(AXIS).astype(jnp.uint32)
        stride = place * jnp.uint32(DEVICE_STRIDE) * jnp.uint32(sign % 2**32)
        return {
            # A seed generator's state is [seed, counter].
            name: array.at[0].add(stride) if array.dtype == jnp.uint32 else array
            for name, array in others.items()
        }


def in_touched_rows(batch: Pieces, num_rows: int) -> tuple[jax.Array, Pieces]:
    """The ids that a batch names, and the batch counted in them.

        items [[40, 7, 0]]   targets [[7, 9, 0]]     ids    [0, 7, 9, 40, beyond, ...]
                                                     items  [[3, 1, 0]]   targets [[1, 2, 0]]

    Args:
        batch: Of dense ids.
        num_rows: Of the item table.

    Returns:
        ids int32[n], distinct and ascending, 0 first; their number depends on the batch's shape
        alone, so that ids beyond the table fill it up. And the batch whose ids count them.
    """
    named = {
        "item_ids": batch.inputs["item_ids"],
        **{name: ids for name, ids in batch.targets.items() if name.endswith("_sequence")},
        **{name: ids for name, ids in batch.shared.items() if name.endswith("_sequence")},
    }
    flat = jnp.concatenate([jnp.zeros(1, jnp.int32), *(ids.reshape(-1) for ids in named.values())])
    size = min(flat.size, num_rows)
    ids, places = jnp.unique(flat, return_inverse=True, size=size, fill_value=num_rows)
    ids = jnp.where(ids == num_rows, num_rows + jnp.arange(size, dtype=ids.dtype), ids)
    places = places.astype(jnp.int32)[1:]
    counted, start = {}, 0
    for name, dense in named.items():
        counted[name] = places[start : start + dense.size].reshape(dense.shape)
        start += dense.size
    return ids, batch._replace(
        inputs={**batch.inputs, "item_ids": counted["item_ids"]},
        targets={name: counted.get(name, array) for name, array in batch.targets.items()},
        shared={name: counted.get(name, array) for name, array in batch.shared.items()},
    )


def _numbered(variables: Sequence[Any], first: int = 0) -> dict[str, Any]:
    return {f"{number:04d}": variable for number, variable in enumerate(variables, first)}


def _of_one_device(array: jax.Array) -> jax.Array:
    """An array that every device holds, on the first of them alone; nothing is copied."""
    return array.addressable_data(0)
