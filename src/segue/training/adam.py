"""Adam (Kingma & Ba, 2015) as pure functions of arrays, on JAX; equal to `keras.optimizers.Adam`.

With the bias corrections in the rate: with t the number of the step, from 1,

    m <- m + (1 - beta_1) (g - m)        v <- v + (1 - beta_2) (g^2 - v)
    w <- w - rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)

A running average of the weights (Polyak & Juditsky, 1992) is kept where it is asked for; the first
step sets it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

Arrays = Mapping[str, jax.Array]

BETA_1 = 0.9
EPSILON = 1e-7


class AdamState(NamedTuple):
    """What Adam remembers between two steps.

    Attributes:
        step: int32, how many steps were taken.
        means, squares: the moments of the gradients, as the weights by name.
        averages: the running averages of the weights; empty where none are kept.
    """

    step: jax.Array
    means: dict[str, jax.Array]
    squares: dict[str, jax.Array]
    averages: dict[str, jax.Array]


class TouchedRows(NamedTuple):
    """The gradient of an array, of which all other rows are zero.

    Attributes:
        ids: int32[n], ascending and distinct; those beyond the array's rows are padding.
        slopes: float[n, ...], the gradient of each of these rows.
    """

    ids: jax.Array
    slopes: jax.Array


@dataclass(frozen=True)
class Adam:
    """The settings.

    Attributes:
        rate: the learning rate of a step, whose number counts from 0.
        beta_2: what is kept of the squares at each step.
        averaging: what is kept of the running average at each step; 0: there is none.
    """

    rate: Callable[[jax.Array], jax.Array]
    beta_2: float
    averaging: float = 0.0

    def start(self, weights: Arrays) -> AdamState:
        """The state before the first step."""
        zeros = {name: jnp.zeros_like(array) for name, array in weights.items()}
        averages = dict(weights) if self.averaging else {}
        return AdamState(jnp.zeros((), jnp.int32), zeros, dict(zeros), averages)

    def updated(
        self, weights: Arrays, slopes: Mapping[str, jax.Array | TouchedRows], state: AdamState
    ) -> tuple[dict[str, jax.Array], AdamState]:
        """The weights and the state after a step.

        Rows that `TouchedRows` leaves out stay as they are, moments included: there it departs from
        Adam, whose moments decay at every step.

        Args:
            weights: arrays by name.
            slopes: the gradient of each.
            state: before the step.
        """
        number = (state.step + 1).astype(jnp.float32)
        corrections = jnp.sqrt(1 - self.beta_2**number) / (1 - BETA_1**number)
        rate = self.rate(state.step) * corrections
        after = {
            name: self._stepped(weight, slopes[name], state.means[name], state.squares[name], rate)
            for name, weight in weights.items()
        }
        new, means, squares = (
            {name: arrays[part] for name, arrays in after.items()} for part in range(3)
        )
        return new, AdamState(state.step + 1, means, squares, self._averaged(new, state))

    def _stepped(
        self,
        weight: jax.Array,
        slope: jax.Array | TouchedRows,
        mean: jax.Array,
        square: jax.Array,
        rate: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """An array and its moments after the step."""
        if not isinstance(slope, TouchedRows):
            change, mean, square = self._change(slope, mean, square, rate)
            return weight - change, mean, square
        ids = slope.ids
        change, mean_rows, square_rows = self._change(
            slope.slopes, rows_of(mean, ids), rows_of(square, ids), rate
        )
        return (
            _with_rows(weight, ids, rows_of(weight, ids) - change),
            _with_rows(mean, ids, mean_rows),
            _with_rows(square, ids, square_rows),
        )

    def _change(
        self, slope: jax.Array, mean: jax.Array, square: jax.Array, rate: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What the weights lose, and the moments."""
        mean = mean + (slope - mean) * (1 - BETA_1)
        square = square + (jnp.square(slope) - square) * (1 - self.beta_2)
        return rate * mean / (jnp.sqrt(square) + EPSILON), mean, square

    def _averaged(self, weights: Arrays, state: AdamState) -> dict[str, jax.Array]:
        kept = jnp.where(state.step == 0, 0.0, self.averaging)
        return {
            name: kept * average + (1 - kept) * weights[name]
            for name, average in state.averages.items()
        }


def rows_of(array: jax.Array, ids: jax.Array) -> jax.Array:
    """The rows of ascending ids; beyond the array the last row is given."""
    return array.at[ids].get(mode="clip", indices_are_sorted=True)


def _with_rows(array: jax.Array, ids: jax.Array, rows: jax.Array) -> jax.Array:
    """The array with these rows put in: in place where its buffer was given away."""
    return array.at[ids].set(rows, mode="drop", indices_are_sorted=True, unique_indices=True)
