"""Splits: what is trained on, what validates, what tests; and that nothing leaks between them.

Leave-one-out is the split of the sequential literature (Kang and McAuley, "Self-Attentive
Sequential Recommendation", ICDM 2018, section IV-A). It lets other users' later interactions into
training; the global split by time does not.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.histories import Histories
from segue.data.ids import compared_as
from segue.data.log import InteractionLog
from segue.data.order import ties_of
from segue.data.times import as_moment
from segue.errors import DataError

TRAIN, VALIDATION, TEST = 0, 1, 2
PART_NAMES = ("train", "validation", "test")
LEAVE_ONE_OUT, LAST_BASKET = "leave-one-out", "last-basket"
GLOBAL_TIME, NO_SPLIT = "global-time", "none"
MIN_LEAVE_ONE_OUT = 3  # interactions, or baskets
VALIDATION_QUANTILE, TEST_QUANTILE = 0.8, 0.9
# Of all histories together: 4 GB, at up to 20 bytes each.
MAX_SUCCESSIVE_ITEMS = 200_000_000


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What an evaluation ranks: users, each with a history and the item that followed.

    A user with several targets has one row for each of them.

    Attributes:
        part: "validation" or "test".
        histories: Everything before each target, asked about at the target's own time where times
            are moments; may be empty for some users.
        targets: int32[users], dense.
        is_trained_user: bool[users], True where the user has training interactions; None where
            that is not known.
        repeats: Whether an item of the history may be the target; else it is no candidate.
    """

    part: str
    histories: Histories
    targets: npt.NDArray[np.int32]
    is_trained_user: npt.NDArray[np.bool_] | None = None
    repeats: bool = False

    def __post_init__(self) -> None:
        num_items = self.histories.vocabulary.num_items
        is_item = (self.targets >= 1) & (self.targets <= num_items)
        if len(self.targets) != self.num_users or not is_item.all():
            raise DataError(
                f"{len(self.targets):,} targets for {self.num_users:,} users; give each user one "
                f"dense id from 1 to {num_items:,}"
            )

    @property
    def num_users(self) -> int:
        return self.histories.num_users

    @cached_property
    def owners(self) -> npt.NDArray[np.int64] | None:
        """Whose each target is, int64[users] from 0; None where everybody has one."""
        user_ids = self.histories.user_ids
        if user_ids.n_unique() == len(user_ids):
            return None
        return user_ids.rank("dense").to_numpy().astype(np.int64) - 1

    def take(self, users: npt.NDArray[np.intp]) -> Self:
        """These users (by index), in the order given."""
        is_trained = self.is_trained_user
        return type(self)(
            self.part,
            self.histories.take(users),
            self.targets[users],
            None if is_trained is None else is_trained[users],
            self.repeats,
        )

    def only(self, user_ids: pl.Series) -> Self:
        """The users among `user_ids` (outside ids, compared by text), in the order they have here.

        Raises:
            DataError: None of them is held out.
        """
        own_ids = self.histories.user_ids
        wanted = compared_as(user_ids, own_ids.dtype).drop_nulls()
        users = np.flatnonzero(own_ids.is_in(wanted.implode()).to_numpy())
        if not users.size:
            raise DataError(
                f"none of the {len(user_ids):,} users asked for is held out for {self.part}; "
                f"give ids such as {self.histories.user_ids[0]!r}"
            )
        return self.take(users)

    def sample(self, n: int, seed: int) -> Self:
        """`n` users drawn without replacement, in the order they have here; all if fewer.

        A user with several targets is drawn with all of them.
        """
        if n < 1:
            raise DataError(f"a sample of {n} users is none; ask for at least 1")
        owners = np.arange(self.num_users) if self.owners is None else self.owners
        num_owners = int(owners.max()) + 1
        drawn = np.random.default_rng(seed).choice(num_owners, min(n, num_owners), replace=False)
        return self.take(np.flatnonzero(np.isin(owners, drawn)))


@dataclass(frozen=True, eq=False)
class Split:
    """A log in three parts. Making one checks that no part knows what comes after it.

    Attributes:
        kind: "leave-one-out", "last-basket", "global-time" or "none".
        histories: All of the log.
        parts: uint8[interactions], beside the histories: TRAIN, VALIDATION or TEST.
        notes: One line each: how the log was cut, with counts.
        repeats: Whether users come back to items, as with groceries or music, so that an item of
            the history may be recommended again.
        log_notes: One line each, as of the log: how it was read, what was dropped and why.

    Raises:
        DataError: The parts leak, or contradict the kind.
    """

    kind: str
    histories: Histories
    parts: npt.NDArray[np.uint8]
    notes: tuple[str, ...] = ()
    repeats: bool = False
    log_notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = {
            LEAVE_ONE_OUT: self._refuse_more_than_one,
            LAST_BASKET: self._refuse_cut_baskets,
            GLOBAL_TIME: self._refuse_later_before,
            NO_SPLIT: self._refuse_any_held_out,
        }
        if self.kind not in checks:
            raise DataError(f"split {self.kind!r} is unknown; it is one of {', '.join(checks)}")
        if len(self.parts) != self.histories.num_interactions or self.parts.max(initial=0) > TEST:
            raise DataError(
                f"{len(self.parts):,} parts for {self.histories.num_interactions:,} interactions; "
                f"give each {TRAIN}, {VALIDATION} or {TEST}"
            )
        self._refuse_disorder()
        checks[self.kind]()

    @cached_property
    def train(self) -> Histories:
        """The training interactions, of all users; the vocabulary is still the whole log's."""
        return self.histories.select(self.parts == TRAIN)

    @cached_property
    def validation(self) -> HeldOut | None:
        """The first validation item of each user who has one; None where nobody has.

        Where whole baskets are held out, every item of the basket.
        """
        return self._held_out_part(VALIDATION)

    @cached_property
    def test(self) -> HeldOut | None:
        """The first test item of each user who has one, validation part of the history.

        Where whole baskets are held out, every item of the basket.
        """
        return self._held_out_part(TEST)

    def successive_test(self) -> HeldOut | None:
        """Every test item one after another, each with all before it as the history.

        What a user did earlier in the test part is known when the later is asked for, as it would
        be to a service; the model is not trained again in between. None where nobody has any.

        Source: "successive" targets of Gusak, Volodkevich, Klenitskiy, Vasilev and Frolov, "Time to
        split: exploring data splitting strategies for offline evaluation of sequential
        recommenders", RecSys 2025.

        Raises:
            DataError: The histories hold too many items together.
        """
        if self.kind == LAST_BASKET:  # nothing of a basket is known before the rest of it
            return self.test
        places = np.flatnonzero(self.parts == TEST)
        return self._held_out(TEST, places, places)

    def _held_out_part(self, part: int) -> HeldOut | None:
        places = np.flatnonzero(self.parts == part)
        users = self.histories.users[places]
        firsts, of_user = np.unique(users, return_index=True, return_inverse=True)[1:]
        if self.kind != LAST_BASKET:
            return self._held_out(part, places[firsts], places[firsts])
        basket_items = np.stack([users, self.histories.item_ids[places]])
        distinct = np.sort(np.unique(basket_items, axis=1, return_index=True)[1])
        return self._held_out(part, places[distinct], places[firsts][of_user][distinct])

    def _held_out(
        self, part: int, places: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]
    ) -> HeldOut | None:
        """The items at these places as targets, None where there are none.

        Args:
            part: VALIDATION or TEST.
            places: int64[targets], of the targets in the flat arrays.
            ends: int64[targets], up to but without which the history of each goes.

        Raises:
            DataError: The histories hold too many items together.
        """
        if not places.size:
            return None
        users = self.histories.users[places]
        size = int((ends - self.histories.offsets[users]).sum())
        if size > MAX_SUCCESSIVE_ITEMS:
            raise DataError(
                f"{len(places):,} {PART_NAMES[part]} items with {size:,} items before them exceed "
                f"the limit of {MAX_SUCCESSIVE_ITEMS:,}; take each user's first one, or a later "
                f"moment"
            )
        seconds = self.histories.seconds
        before = self.histories.take_until(users, ends)
        return HeldOut(
            PART_NAMES[part],
            before.asked(None if seconds is None else seconds[places]),
            self.histories.item_ids[places],
            self.train.lengths[users] > 0,
            self.repeats,
        )

    def _refuse_disorder(self) -> None:
        """Within a user: training, then validation, then test."""
        users = self.histories.users
        is_fall = (self.parts[1:] < self.parts[:-1]) & (users[1:] == users[:-1])
        if is_fall.any():
            place = int(is_fall.argmax())
            early, late = PART_NAMES[self.parts[place]], PART_NAMES[self.parts[place + 1]]
            raise DataError(
                f"leakage: user {self.histories.user_ids[int(users[place])]!r} has a {late} "
                f"interaction after one for {early}; split the log again"
            )

    def _refuse_more_than_one(self) -> None:
        users = self.histories.users
        counts = [
            np.bincount(users[self.parts == part], minlength=self.histories.num_users)
            for part in (VALIDATION, TEST)
        ]
        is_wrong = (counts[0] != counts[1]) | (counts[0] > 1)
        if is_wrong.any():
            user = int(is_wrong.argmax())
            raise DataError(
                f"leave-one-out holds out one interaction for validation and one for test, not "
                f"{counts[0][user]} and {counts[1][user]} as for user "
                f"{self.histories.user_ids[user]!r}; split the log again"
            )

    def _refuse_cut_baskets(self) -> None:
        """What is held out of a user is two whole baskets, the last but one and the last."""
        users, times = self.histories.users, _times_of(self.histories)
        is_same_user = users[1:] == users[:-1]
        is_same_time = times[1:] == times[:-1]
        is_same_part = self.parts[1:] == self.parts[:-1]
        is_held_out = self.parts[1:] != TRAIN
        is_wrong = is_same_user & is_held_out & (is_same_time != is_same_part)
        if is_wrong.any():
            user = self.histories.user_ids[int(users[1:][is_wrong][0])]
            raise DataError(
                f"last-basket holds out whole baskets, one for validation and one for test, but "
                f"cuts one of user {user!r} in two or takes several; split the log again"
            )

    def _refuse_later_before(self) -> None:
        all_times = _times_of(self.histories)
        times = [all_times[self.parts == part] for part in range(len(PART_NAMES))]
        for part in (VALIDATION, TEST):
            earlier = np.concatenate(times[:part])
            if earlier.size and times[part].size and earlier.max() >= times[part].min():
                raise DataError(
                    f"leakage: something before {PART_NAMES[part]} happened at {earlier.max()}, "
                    f"but {PART_NAMES[part]} begins at {times[part].min()}; split the log again"
                )

    def _refuse_any_held_out(self) -> None:
        if self.parts.any():
            raise DataError(
                f"no split, yet {np.count_nonzero(self.parts):,} interactions are held out; "
                f"name the split that did it"
            )


def leave_one_out(log: InteractionLog | Histories, *, repeats: bool = False) -> Split:
    """Each user's last interaction to test, the one before to validate, the rest to train.

    Users with fewer than 3 interactions stay in training whole, and the notes count them.

    Args:
        log: Any log.
        repeats: As of `Split`.

    Raises:
        DataError: No user has 3 interactions.
    """
    histories = _histories(log)
    lengths = histories.lengths
    is_held_out = lengths >= MIN_LEAVE_ONE_OUT
    if not is_held_out.any():
        raise DataError(
            f"no user has the {MIN_LEAVE_ONE_OUT} interactions that leave-one-out needs; the "
            f"longest history has {lengths.max(initial=0)}: use another split or a longer log"
        )
    lasts = histories.offsets[1:][is_held_out] - 1
    parts = np.zeros(histories.num_interactions, np.uint8)
    parts[lasts - 1] = VALIDATION
    parts[lasts] = TEST
    num_tied = _num_tied(histories.timestamps, lasts)
    notes = [
        f"leave-one-out: {len(lasts):,} users hold out one interaction each for validation and "
        f"test; {np.count_nonzero(~is_held_out):,} with fewer than {MIN_LEAVE_ONE_OUT} stay in "
        f"training"
    ]
    if num_tied:
        notes.append(f"ties in time: for {num_tied:,} users the log's order decides what that is")
    notes += _order_warnings(histories)
    return Split(LEAVE_ONE_OUT, histories, parts, tuple(notes), repeats, _notes_of(log))


def last_basket(log: InteractionLog | Histories, *, repeats: bool = False) -> Split:
    """Each user's last basket to test, the one before to validate, the rest to train.

    A basket is everything that a user took at one time. Each of its items is a target, and the
    history ends before the basket. Users with fewer than 3 baskets stay in training whole, and the
    notes count them.

    Args:
        log: Any log.
        repeats: As of `Split`.

    Raises:
        DataError: No user has 3 baskets, or the histories have no times.
    """
    histories = _histories(log)
    users, times = histories.users, _times_of(histories)
    is_first = np.ones(len(users), np.bool_)  # of its basket
    is_first[1:] = (users[1:] != users[:-1]) | (times[1:] != times[:-1])
    basket = np.cumsum(is_first) - 1
    baskets_of_user = np.bincount(users[is_first], minlength=histories.num_users)
    from_the_end = np.cumsum(baskets_of_user)[users] - 1 - basket
    is_held_out = baskets_of_user >= MIN_LEAVE_ONE_OUT
    if not is_held_out.any():
        raise DataError(
            f"no user has the {MIN_LEAVE_ONE_OUT} baskets that last-basket needs; the most that "
            f"a user has is {baskets_of_user.max(initial=0)}: use another split or a longer log"
        )
    parts = np.where(is_held_out[users], np.maximum(TEST - from_the_end, TRAIN), TRAIN)
    parts = parts.astype(np.uint8)
    counts = np.bincount(parts, minlength=len(PART_NAMES))
    notes = (
        f"last-basket: {np.count_nonzero(is_held_out):,} users hold out {counts[VALIDATION]:,} "
        f"interactions for validation and {counts[TEST]:,} for test; "
        f"{np.count_nonzero(~is_held_out):,} with fewer than {MIN_LEAVE_ONE_OUT} baskets stay in "
        f"training",
        *_order_warnings(histories),
    )
    return Split(LAST_BASKET, histories, parts, notes, repeats, _notes_of(log))


def global_time(
    log: InteractionLog | Histories,
    *,
    validation_from: Any = None,
    test_from: Any = None,
    repeats: bool = False,
) -> Split:
    """Cut the log at two moments: everything at or after `test_from` is test, and so on.

    Args:
        log: Any log.
        validation_from, test_from: Numbers in the log's unit, dates or datetimes (UTC where they
            have no zone), or either as text. By default the times that 80% and 90% of the
            interactions come before.
        repeats: As of `Split`.

    Raises:
        DataError: The moments are not in order, or one of the three parts would be empty.
    """
    histories = _histories(log)
    times = _times_of(histories)
    if not times.size:
        raise DataError("there are no interactions to split; give a log that has some")
    starts = [
        _quantile(times, quantile) if moment is None else as_moment(moment, histories.unit)
        for moment, quantile in (
            (validation_from, VALIDATION_QUANTILE),
            (test_from, TEST_QUANTILE),
        )
    ]
    parts = sum((times >= start).astype(np.uint8) for start in starts)
    counts = np.bincount(parts, minlength=len(PART_NAMES))
    if not counts.all() or starts[0] >= starts[1]:
        raise DataError(
            f"validation from {starts[0]} and test from {starts[1]} leave {counts[0]:,} "
            f"interactions to train on, {counts[1]:,} and {counts[2]:,} held out; give moments in "
            f"order between {times.min()} and {times.max()} (--validation-from, --test-from)"
        )
    notes = (
        f"global-time: {counts[0]:,} interactions before {starts[0]} train, {counts[1]:,} before "
        f"{starts[1]} validate, {counts[2]:,} from then on test",
        *_order_warnings(histories),
    )
    return Split(GLOBAL_TIME, histories, parts, notes, repeats, _notes_of(log))


def no_split(log: InteractionLog | Histories, *, repeats: bool = False) -> Split:
    """Everything trains; nothing can be evaluated. `repeats` is as of `Split`."""
    histories = _histories(log)
    parts = np.zeros(histories.num_interactions, np.uint8)
    notes = ("no split: every interaction trains", *_order_warnings(histories))
    return Split(NO_SPLIT, histories, parts, notes, repeats, _notes_of(log))


def _histories(log: InteractionLog | Histories) -> Histories:
    return log if isinstance(log, Histories) else Histories.from_log(log)


def _order_warnings(histories: Histories) -> tuple[str, ...]:
    """A line where the order within ties in time is that of the items' ids."""
    if histories.timestamps is None:
        return ()
    return ties_of(histories.users, histories.timestamps, histories.item_ids).warnings()


def _notes_of(log: InteractionLog | Histories) -> tuple[str, ...]:
    return log.notes if isinstance(log, InteractionLog) else ()


def _times_of(histories: Histories) -> npt.NDArray[Any]:
    """The times of histories that have some.

    Raises:
        DataError: They have none.
    """
    if histories.timestamps is None:
        raise DataError("these histories have no times to split by; make them from a log")
    return histories.timestamps


def _num_tied(times: npt.NDArray[Any] | None, lasts: npt.NDArray[np.int64]) -> int:
    """How many users' last three interactions do not all differ in time; 0 without times."""
    if times is None:
        return 0
    is_tied = (times[lasts] == times[lasts - 1]) | (times[lasts - 1] == times[lasts - 2])
    return int(np.count_nonzero(is_tied))


def _quantile(times: npt.NDArray[Any], quantile: float) -> Any:
    """The time that this part of the interactions comes before, ties apart."""
    place = int(quantile * len(times))
    return np.partition(times, place)[place]
