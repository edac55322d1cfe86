"""Samplers of negatives: vectorised, drawn afresh for every batch, from a counter-based generator.

A draw is a function of (seed, epoch, batch), so that a resumed run sees the same negatives. Padding
and ids outside the vocabulary are never drawn.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.config import DrawnLossConfig
from segue.data.histories import Histories
from segue.errors import TrainingError

# Redraws before the few remaining collisions are settled one by one; each round leaves the share
# of the catalogue that the user knows, so 20 rounds leave 1 in a million at one half.
MAX_REDRAWS = 20


def generator(seed: int, *counters: int) -> np.random.Generator:
    """A NumPy generator that depends on nothing but the seed and the counters."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *counters])))


@dataclass(frozen=True, eq=False)
class NegativeSampler:
    """Draws items in proportion to `probabilities`.

    Attributes:
        probabilities: float64[num_items], of dense ids 1..num_items.
        known_keys: int64[n], sorted `user * (num_items + 1) + item` of the items never to be drawn
            for a user; None: any item may be.
    """

    probabilities: npt.NDArray[np.float64]
    known_keys: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(cls, config: DrawnLossConfig, train: Histories) -> "NegativeSampler":
        """The sampler that the configuration asks for, over the training histories."""
        num_items = train.vocabulary.num_items
        if config.sampling == "uniform":
            probabilities = np.full(num_items, 1.0 / num_items)
        else:
            counts = train.item_counts()[1:].astype(np.float64)
            probabilities = counts / counts.sum()
        sampler = cls(probabilities)
        if config.exclude_history:
            return cls(probabilities, sampler.keys(train.users, train.item_ids))
        return sampler

    def keys(
        self, users: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.int64]:
        """The `known_keys` of these pairs of user and item."""
        return np.unique(self._key(users, items))

    @property
    def log_expected(self) -> npt.NDArray[np.float32]:
        """float32[num_items + 1]: the log of each item's probability; 0 for padding."""
        tiny = np.finfo(np.float64).tiny
        logs = np.log(np.maximum(self.probabilities, tiny))
        return np.concatenate([[0.0], logs]).astype(np.float32)

    def draw(
        self,
        random: np.random.Generator,
        shape: tuple[int, ...],
        users: npt.NDArray[np.int64] | None = None,
        pool: npt.NDArray[np.int32] | None = None,
    ) -> npt.NDArray[np.int32]:
        """int32[shape], each in 1..num_items.

        Args:
            random: the source; see `generator`.
            shape: of the result.
            users: int64[shape[:len(users.shape)]], whose histories the draws avoid; needed where
                the sampler excludes histories.
            pool: int32[n], items to draw from, each as often as it is there, but for a user who
                knows them all; None: by the probabilities.

        Raises:
            TrainingError: a user's history holds every item that could be drawn.
        """
        drawn = self._any_items(random, int(np.prod(shape)), pool)
        if self.known_keys is not None and users is not None:
            per_user = drawn.size // max(1, users.size)
            self._redraw_known(random, drawn, np.repeat(users.reshape(-1), per_user), pool)
        return drawn.reshape(shape).astype(np.int32)

    def _any_items(
        self, random: np.random.Generator, count: int, pool: npt.NDArray[np.int32] | None
    ) -> npt.NDArray[np.int64]:
        if pool is not None:
            return pool[random.integers(0, len(pool), count)].astype(np.int64)
        if self._is_uniform:
            return random.integers(1, len(self.probabilities) + 1, count)
        drawn: npt.NDArray[np.int64]
        shares = random.random(count) * self._edges[-1]
        drawn = np.searchsorted(self._edges, shares, side="right") + 1
        return drawn

    @cached_property
    def _is_uniform(self) -> bool:
        return bool(np.all(self.probabilities == self.probabilities[0]))

    @cached_property
    def _edges(self) -> npt.NDArray[np.float64]:
        return np.cumsum(self.probabilities)

    def _redraw_known(
        self,
        random: np.random.Generator,
        drawn: npt.NDArray[np.int64],
        users: npt.NDArray[np.int64],
        pool: npt.NDArray[np.int32] | None,
    ) -> None:
        """Replaces, in place, the draws that their users know."""
        pending = np.flatnonzero(self._is_known(users, drawn))
        for _ in range(MAX_REDRAWS):
            if not pending.size:
                return
            drawn[pending] = self._any_items(random, pending.size, pool)
            pending = pending[self._is_known(users[pending], drawn[pending])]
        for at in pending:
            drawn[at] = self._one_unknown(random, int(users[at]))

    def _is_known(
        self, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        assert self.known_keys is not None
        if not len(self.known_keys):
            return np.zeros(len(users), dtype=np.bool_)
        keys = self._key(users, items)
        at = np.minimum(np.searchsorted(self.known_keys, keys), len(self.known_keys) - 1)
        is_known: npt.NDArray[np.bool_] = self.known_keys[at] == keys
        return is_known

    def _key(self, users: npt.NDArray[np.int64], items: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        keys: npt.NDArray[np.int64] = users * (len(self.probabilities) + 1) + items
        return keys

    def _one_unknown(self, random: np.random.Generator, user: int) -> int:
        items = np.arange(1, len(self.probabilities) + 1)
        is_open = ~self._is_known(np.full(len(items), user), items) & (self.probabilities > 0)
        if not is_open.any():
            raise TrainingError(
                f"the user at index {user} of the histories has interacted with every item that "
                "can be drawn, so no negative exists; set exclude_history=false"
            )
        chances = self.probabilities[is_open]
        return int(random.choice(items[is_open], p=chances / chances.sum()))
