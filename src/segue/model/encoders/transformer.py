"""What the Transformer encoders share: settings, positions, and the pre-norm block."""

from typing import Any, ClassVar, Literal, get_args

import keras
from keras import ops
from pydantic import Field, field_validator, model_validator

from segue.config import ModelConfig
from segue.model.attention import SelfAttention
from segue.model.encoders.gaps import GAP_COLUMNS, GapEmbedding
from segue.model.encoders.protocol import Inputs
from segue.model.kernels.tensors import Tensor
from segue.model.layers import (
    Dropout,
    FeedForward,
    LayerNorm,
    PositionEmbedding,
    SwiGLU,
    as_mask,
    at_positions,
)

BLOCK_EPSILON = 1e-5  # of the blocks' layer normalisations, as the tutorial has it
FINAL_EPSILON = 1e-8  # of the last one, as the tutorial has it

# The items put in, attention's weights, what attention gives, within the feed-forward, and what a
# block's last part gives.
DropoutPlace = Literal["embedding", "attention", "attended", "inner", "output"]


class TransformerConfig(ModelConfig):
    """The settings of an encoder of self-attention blocks."""

    # Where the encoder drops out by default.
    default_places: ClassVar[tuple[DropoutPlace, ...]] = (
        "embedding",
        "attention",
        "attended",
        "output",
    )

    num_heads: int = Field(default=1, ge=1, le=64)
    feedforward_width: int | None = Field(
        default=None, ge=1, description="None: width, twice it in esasrec"
    )
    positions: Literal["learned", "from_end", "rotary", "both"] = Field(
        default="learned",
        description="learned: added to the items; from_end: the same, counted from the newest item "
        "as SASRec's code does; rotary: how far apart items are, in attention; both: learned and "
        "rotary",
    )
    scale_embedding: bool = Field(
        default=True, description="item embeddings times sqrt(width) at the input, as SASRec's code"
    )
    request_time: Literal["unused", "gap"] = Field(
        default="unused",
        description="gap: the time between each item and the request for the next one is an input, "
        "at each position; unused: the order of the items alone",
    )
    hidden_times: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="with request_time: the share of the windows, and of the positions, whose "
        "times are hidden in training, so that the model also answers where times are unknown",
    )
    dropout_places: tuple[DropoutPlace, ...] | None = Field(
        default=None,
        strict=False,
        description="embedding, attention, attended, inner, output; None: the encoder's own",
    )

    def dropout_at(self, place: DropoutPlace) -> float:
        """The rate at that place, 0 where nothing is dropped out."""
        places = self.default_places if self.dropout_places is None else self.dropout_places
        return self.dropout if place in places else 0.0

    @property
    def wants(self) -> tuple[str, ...]:
        """As `ModelConfig.wants`."""
        return GAP_COLUMNS if self.request_time == "gap" else ()

    @property
    def is_rotary(self) -> bool:
        """Whether attention knows how far apart two items are."""
        return self.positions in ("rotary", "both")

    @property
    def width_unit(self) -> int:
        """What the width must be a multiple of: rotary positions turn pairs of a head."""
        return self.num_heads * (2 if self.is_rotary else 1)

    @property
    def is_learned(self) -> bool:
        """Whether a vector of the position is added to each item's."""
        return self.positions != "rotary"

    @field_validator("dropout_places")
    @classmethod
    def _each_place_once(
        cls, places: tuple[DropoutPlace, ...] | None
    ) -> tuple[DropoutPlace, ...] | None:
        """In one order, so that equal settings are equal."""
        if places is None:
            return None
        return tuple(place for place in get_args(DropoutPlace) if place in places)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TransformerConfig":
        if self.width % self.num_heads:
            raise ValueError(
                f"width={self.width} is not a multiple of num_heads={self.num_heads}; "
                "choose a width that the heads divide"
            )
        if self.is_rotary and self.width // self.num_heads % 2:
            raise ValueError(
                f"positions={self.positions} turns pairs of numbers, and width={self.width} in "
                f"num_heads={self.num_heads} leaves {self.width // self.num_heads} a head; "
                "choose an even number a head"
            )
        return self


class Block(keras.layers.Layer):
    """Pre-norm Transformer block: x + attention(norm(x)), then x + feed-forward(norm(x))."""

    feedforward_class: type[FeedForward | SwiGLU] = FeedForward
    # The feed-forward's width in widths of the block, where the settings leave it open.
    feedforward_factor = 1

    def __init__(self, settings: TransformerConfig, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width = settings.width
        self.attention_norm = _norm("attention_norm")
        self.attention = SelfAttention(
            width,
            settings.num_heads,
            settings.dropout_at("attention"),
            seed,
            settings.is_rotary,
            name="attention",
        )
        self.attended_dropout = Dropout(settings.dropout_at("attended"), seed + 10)
        self.feedforward_norm = _norm("feedforward_norm")
        self.feedforward = self.feedforward_class(
            width,
            settings.feedforward_width or self.feedforward_factor * width,
            settings.dropout_at("inner"),
            seed + 20,
            name="feedforward",
        )
        self.output_dropout = Dropout(settings.dropout_at("output"), seed + 30)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for part in (self.attention_norm, self.attention, self.feedforward_norm, self.feedforward):
            part.build(input_shape)
        self.built = True

    def call(self, inputs: Tensor, segment_ids: Tensor, training: bool = False) -> Tensor:
        """Args: inputs: float[rows, length, width], segment_ids: int32[rows, length]."""
        normed = self.attention_norm(inputs)
        context = self._context(inputs, normed)
        attended = self.attention(normed, context, segment_ids, training=training)
        attended = self.attended_dropout(attended, training=training)
        return self._fed_forward(
            self._with_attended(self._carried(inputs, normed), attended), training
        )

    def last(self, inputs: Tensor, segment_ids: Tensor, last_positions: Tensor) -> Tensor:
        """The block's state at one position of each row: float[rows, 1, width]."""
        normed = self.attention_norm(inputs)
        context = self._context(inputs, normed)
        attended = self.attention.last(normed, context, segment_ids, last_positions)
        newest = at_positions(self._carried(inputs, normed), last_positions)
        return self._fed_forward(self._with_attended(newest, attended), False)

    def attended_from(self, inputs: Tensor, segment_ids: Tensor, positions: Tensor) -> Tensor:
        """What one position of each row attends to; see `SelfAttention.weights_at`."""
        normed = self.attention_norm(inputs)
        context = self._context(inputs, normed)
        return self.attention.weights_at(normed, context, segment_ids, positions)

    def _fed_forward(self, states: Tensor, training: bool) -> Tensor:
        normed = self.feedforward_norm(states)
        outputs = self.feedforward(normed, training=training)
        outputs = self.output_dropout(outputs, training=training)
        return self._with_fed_forward(self._carried(states, normed), outputs)

    def _context(self, inputs: Tensor, normed: Tensor) -> Tensor:
        """What keys and values are made of."""
        return normed

    def _carried(self, inputs: Tensor, normed: Tensor) -> Tensor:
        """What a part's output is added to."""
        return inputs

    def _with_attended(self, inputs: Tensor, attended: Tensor) -> Tensor:
        return inputs + attended

    def _with_fed_forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        return inputs + outputs


class TransformerEncoder(keras.layers.Layer):
    """Item vectors and positions through blocks of self-attention, then a layer normalisation.

    Positions count from the window's start, so that the state after n items is trained at the
    position where a history of n items is asked, unless `positions="from_end"`; rotary positions
    (Su et al., 2021) may replace or complement them.
    """

    Settings: ClassVar[type[TransformerConfig]] = TransformerConfig
    block_class: ClassVar[type[Block]] = Block

    def __init__(self, settings: TransformerConfig, seed: int, **kwargs: Any) -> None:
        super().__init__(name="encoder", **kwargs)
        self.settings = settings
        self.gap_embedding = (
            GapEmbedding(settings.width, settings.hidden_times, seed + 3, name="gap_embedding")
            if settings.request_time == "gap"
            else None
        )
        self.position_embedding = (
            PositionEmbedding(
                settings.max_length,
                settings.width,
                seed + 1,
                is_from_end=settings.positions == "from_end",
                name="position_embedding",
            )
            if settings.is_learned
            else None
        )
        self.embedding_dropout = Dropout(
            settings.dropout_at("embedding"), seed + 2, name="embedding_dropout"
        )
        self.blocks = [
            self.block_class(settings, seed + 100 * (number + 1), name=f"block_{number}")
            for number in range(settings.num_blocks)
        ]
        self.final_norm = LayerNorm(epsilon=FINAL_EPSILON, name="final_norm")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates every variable; `input_shape` is that of the item vectors."""
        if self.gap_embedding:
            self.gap_embedding.build()
        if self.position_embedding:
            self.position_embedding.build()
        for block in self.blocks:
            block.build(input_shape)
        self.final_norm.build(input_shape)
        self.built = True

    def states(
        self, vectors: Tensor, inputs: Inputs, segment_ids: Tensor, training: bool = False
    ) -> Tensor:
        """As `Encoder.states`."""
        states = self.embed(vectors, inputs, segment_ids, training)
        for block in self.blocks:
            states = block(states, segment_ids, training=training)
        return self.final_norm(states)

    def last(
        self, vectors: Tensor, inputs: Inputs, segment_ids: Tensor, positions: Tensor
    ) -> Tensor:
        """As `Encoder.last`; the last block computes no other position."""
        states = self._before_last_block(vectors, inputs, segment_ids)
        states = self.blocks[-1].last(states, segment_ids, positions)
        return self.final_norm(states)[:, 0]

    def attention_at(
        self, vectors: Tensor, inputs: Inputs, segment_ids: Tensor, positions: Tensor
    ) -> Tensor:
        """As `Attentive.attention_at`."""
        states = self._before_last_block(vectors, inputs, segment_ids)
        weights = self.blocks[-1].attended_from(states, segment_ids, positions)
        return ops.reshape(weights, (-1, self.settings.num_heads, weights.shape[-1]))

    def embed(
        self, vectors: Tensor, inputs: Inputs, segment_ids: Tensor, training: bool = False
    ) -> Tensor:
        """What the first block takes: items, gaps and positions, float[rows, length, width]."""
        states = vectors
        if self.gap_embedding:
            states = states + ops.cast(
                self.gap_embedding(inputs, segment_ids, training=training), states.dtype
            )
        if self.settings.scale_embedding:
            states = states * self.settings.width**0.5
        if self.position_embedding:
            states = states + self.position_embedding(segment_ids)
        states = self.embedding_dropout(states, training=training)
        return states * as_mask(segment_ids, states.dtype)

    def _before_last_block(self, vectors: Tensor, inputs: Inputs, segment_ids: Tensor) -> Tensor:
        states = self.embed(vectors, inputs, segment_ids)
        for block in self.blocks[:-1]:
            states = block(states, segment_ids)
        return states


def _norm(name: str) -> LayerNorm:
    return LayerNorm(epsilon=BLOCK_EPSILON, name=name)
