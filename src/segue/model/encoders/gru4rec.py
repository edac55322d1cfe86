"""GRU4Rec (Hidasi et al., ICLR 2016): recurrent layers over the items of a history."""

from typing import Any, ClassVar, Literal, get_args

import keras
from keras import ops
from pydantic import Field

from segue.config import ENCODERS, ModelConfig
from segue.model.encoders.protocol import Inputs
from segue.model.kernels.tensors import Tensor
from segue.model.layers import Dropout, as_mask, at_positions

DropoutPlace = Literal["embedding", "output"]


class GRU4RecConfig(ModelConfig):
    """The settings of `gru4rec`, which has neither heads, nor a feed-forward, nor positions."""

    encoder: Literal["gru4rec"] = "gru4rec"
    scale_embedding: bool = Field(
        default=True, description="item embeddings times sqrt(width) at the input"
    )
    dropout_places: tuple[DropoutPlace, ...] | None = Field(
        default=None, strict=False, description="embedding, output; None: both"
    )

    def dropout_at(self, place: DropoutPlace) -> float:
        """The rate at that place, 0 where nothing is dropped out."""
        places = get_args(DropoutPlace) if self.dropout_places is None else self.dropout_places
        return self.dropout if place in places else 0.0


class RecurrentBlock(keras.layers.Layer):
    """A GRU layer whose state starts from zero at each segment; its output is dropped out.

    The paper's equations 2 to 5, with the bias of its reference code:

        z = sigmoid(W_z x + U_z h + b_z)
        r = sigmoid(W_r x + U_r h + b_r)
        c = tanh(W_c x + U_c (r * h) + b_c)
        h' = (1 - z) * h + z * c

    `input_kernel` [width, 3 width], `recurrent_kernel` [width, 3 width] and `bias` [3 width] hold
    z, r and c side by side, in this order.
    """

    def __init__(self, settings: GRU4RecConfig, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = settings.width
        self.seed = seed
        self.dropout = Dropout(settings.dropout_at("output"), seed + 2)
        # XLA wants a bound on a loop it differentiates, which `keras.ops.scan` gives only on JAX.
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (self.width, 3 * self.width)
        self.input_kernel = self.add_weight(
            name="input_kernel",
            shape=shape,
            initializer=keras.initializers.GlorotUniform(seed=self.seed),
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=shape,
            initializer=keras.initializers.Orthogonal(seed=self.seed + 1),
        )
        self.bias = self.add_weight(name="bias", shape=shape[1:], initializer="zeros")
        self.built = True

    def call(self, inputs: Tensor, segment_ids: Tensor, training: bool = False) -> Tensor:
        """The state at each position; on padding something that no item sees.

        Args:
            inputs: float[rows, length, width].
            segment_ids: int32[rows, length]; a segment's positions are neighbours.
            training: drops out.

        Returns:
            float[rows, length, width].
        """
        projected = ops.matmul(inputs, self.input_kernel) + self.bias
        carried = ops.cast(_continues(segment_ids), projected.dtype)[:, :, None]
        gate_kernel, candidate_kernel = ops.split(
            ops.convert_to_tensor(self.recurrent_kernel), [2 * self.width], axis=1
        )

        def step(state: Tensor, slices: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            projected, carried = slices
            state = state * carried
            gates = projected[:, : 2 * self.width] + ops.matmul(state, gate_kernel)
            update, reset = ops.split(ops.sigmoid(gates), 2, axis=1)
            candidate = ops.tanh(
                projected[:, 2 * self.width :] + ops.matmul(reset * state, candidate_kernel)
            )
            state = state + update * (candidate - state)
            return state, state

        by_time = tuple(ops.transpose(each, (1, 0, 2)) for each in (projected, carried))
        zero = ops.zeros_like(by_time[0][0, :, : self.width])
        _, states = ops.scan(step, zero, by_time)
        return self.dropout(ops.transpose(states, (1, 0, 2)), training=training)


@ENCODERS.register("gru4rec")
class GRU4RecEncoder(keras.layers.Layer):
    """Recurrent layers, one on the other. The order of the items is all that they know of time.

    Departure: the item table is shared between input and output, as the other encoders share it.
    """

    Settings: ClassVar[type[GRU4RecConfig]] = GRU4RecConfig

    def __init__(self, settings: GRU4RecConfig, seed: int, **kwargs: Any) -> None:
        super().__init__(name="encoder", **kwargs)
        self.settings = settings
        self.embedding_dropout = Dropout(
            settings.dropout_at("embedding"), seed + 2, name="embedding_dropout"
        )
        self.blocks = [
            RecurrentBlock(settings, seed + 100 * (number + 1), name=f"block_{number}")
            for number in range(settings.num_blocks)
        ]
        # XLA wants a bound on a loop it differentiates, which `keras.ops.scan` gives only on JAX.
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates every variable; `input_shape` is that of the item vectors."""
        for block in self.blocks:
            block.build(input_shape)
        self.built = True

    def states(
        self, vectors: Tensor, inputs: Inputs, segment_ids: Tensor, training: bool = False
    ) -> Tensor:
        """As `Encoder.states`."""
        states = vectors * self.settings.width**0.5 if self.settings.scale_embedding else vectors
        states = self.embedding_dropout(states, training=training)
        states = states * as_mask(segment_ids, states.dtype)
        for block in self.blocks:
            states = block(states, segment_ids, training=training)
        return states

    def last(
        self, vectors: Tensor, inputs: Inputs, segment_ids: Tensor, positions: Tensor
    ) -> Tensor:
        """As `Encoder.last`; a state needs all the states before it."""
        return at_positions(self.states(vectors, inputs, segment_ids), positions)[:, 0]


def _continues(segment_ids: Tensor) -> Tensor:
    """bool[rows, length]: the position before belongs to the same segment."""
    is_same = segment_ids[:, 1:] == segment_ids[:, :-1]
    return ops.concatenate([ops.zeros_like(segment_ids[:, :1], dtype="bool"), is_same], axis=1)
