"""Several rankings of the same users side by side: intervals, and which differences are real."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from segue.data.splits import HeldOut
from segue.errors import RequestError
from segue.evaluation.metrics import bootstrap_intervals, metric_values, summarize
from segue.evaluation.protocol import Ranking
from segue.evaluation.significance import Difference, holm, paired_bootstrap

DECIDING = "ndcg@10"
COMPARED = ("hr@10", DECIDING, "mrr")
SURE = 0.05


@dataclass(frozen=True, eq=False)
class System:
    """Something that ranked the held-out targets, by name; a baseline, or a model."""

    name: str
    ranking: Ranking
    is_baseline: bool


def compare(systems: Sequence[System], *, seed: int = 0) -> dict[str, Any]:
    """Every system's metrics with intervals, and the first one against each of the others.

    Args:
        systems: At least two, all over the same users in the same order; the first is the one that
            the question is about.
        seed: Of the resamples.

    Returns:
        `reference` (the first name), `deciding` (the metric that the verdicts are about), `systems`
        (name -> `is_baseline`, `metrics`, `intervals`) and `differences`, one for each other
        system: `name`, by metric `mean`, `interval`, `p_value` and `adjusted_p_value` (Holm, over
        the other systems), then `is_real` and `verdict`, a sentence.

    Raises:
        RequestError: There are fewer than two systems, or two of one name.
    """
    names = [system.name for system in systems]
    if len(names) < 2:
        raise RequestError(f"{len(names)} systems are no comparison; give at least 2")
    if len(set(names)) < len(names):
        raise RequestError(f"two systems of one name among {', '.join(names)}; rename one")
    reference, *others = systems
    return {
        "reference": reference.name,
        "deciding": DECIDING,
        "systems": {system.name: _measured(system, seed) for system in systems},
        "differences": _differences(reference, others, seed),
    }


def refuse_other_held_out(name: str, first: HeldOut, other_name: str, other: HeldOut) -> None:
    """Refuse to compare runs that were not asked the same: users, histories, targets, candidates.

    Outside ids are compared, because two runs may count the same items differently.

    Raises:
        RequestError: Something differs; the line says what.
    """
    what = _what_differs(first, other)
    if what:
        raise RequestError(
            f"{other_name} was not tested on what {name} was: {what}; fit both on the same log "
            f"with the same split"
        )


def _what_differs(first: HeldOut, other: HeldOut) -> str | None:
    ours, theirs = first.histories, other.histories
    if first.repeats != other.repeats:
        return "only one of them ranks the items of a history again (--repeats)"
    if not _same_text(ours.user_ids, theirs.user_ids):
        return f"its {theirs.num_users:,} test users are not the same {ours.num_users:,}"
    if not _same_text(_sorted_text(ours.vocabulary.ids), _sorted_text(theirs.vocabulary.ids)):
        return (
            f"its catalogue of {theirs.vocabulary.num_items:,} items is not the same "
            f"{ours.vocabulary.num_items:,}"
        )
    if not _same_items(first, other, "targets"):
        return "its targets differ"
    if not np.array_equal(ours.offsets, theirs.offsets) or not _same_items(
        first, other, "histories"
    ):
        return "the histories before its targets differ"
    return None


def _same_items(first: HeldOut, other: HeldOut, what: Literal["targets", "histories"]) -> bool:
    ours, theirs = (
        held_out.targets if what == "targets" else held_out.histories.item_ids
        for held_out in (first, other)
    )
    vocabulary, other_vocabulary = first.histories.vocabulary, other.histories.vocabulary
    if vocabulary.equals(other_vocabulary):
        return np.array_equal(ours, theirs)
    return _same_text(vocabulary.decode(ours), other_vocabulary.decode(theirs))


def _same_text(first: pl.Series, other: pl.Series) -> bool:
    return len(first) == len(other) and bool((first.cast(pl.String) == other.cast(pl.String)).all())


def _sorted_text(ids: pl.Series) -> pl.Series:
    return ids.cast(pl.String).sort()


def _measured(system: System, seed: int) -> dict[str, Any]:
    intervals = bootstrap_intervals(system.ranking.ranks, seed=seed)
    return {
        "is_baseline": system.is_baseline,
        "metrics": summarize(system.ranking.ranks),
        "intervals": {name: list(ends) for name, ends in intervals.items()},
    }


def _differences(reference: System, others: Sequence[System], seed: int) -> list[dict[str, Any]]:
    found: dict[str, list[Difference]] = {}
    for metric in COMPARED:
        own = metric_values(reference.ranking.ranks, metric)
        found[metric] = [
            paired_bootstrap(own, metric_values(other.ranking.ranks, metric), seed=seed)
            for other in others
        ]
    adjusted = {
        metric: holm([each.p_value for each in differences])
        for metric, differences in found.items()
    }
    rows = []
    for place, other in enumerate(others):
        by_metric = {
            metric: _told(differences[place], adjusted[metric][place])
            for metric, differences in found.items()
        }
        deciding = by_metric[DECIDING]
        is_real = deciding["adjusted_p_value"] < SURE
        rows.append(
            {
                "name": other.name,
                "metrics": by_metric,
                "is_real": is_real,
                "verdict": _verdict(reference.name, other.name, deciding, is_real),
            }
        )
    return rows


def _told(difference: Difference, adjusted: float) -> dict[str, Any]:
    return {
        "mean": difference.mean,
        "interval": [difference.low, difference.high],
        "p_value": difference.p_value,
        "adjusted_p_value": adjusted,
    }


def _verdict(reference: str, other: str, difference: Mapping[str, Any], is_real: bool) -> str:
    low, high = difference["interval"]
    figures = (
        f"{DECIDING.upper()} {difference['mean']:+.4f} ({low:+.4f} to {high:+.4f}), "
        f"p = {difference['adjusted_p_value']:.4f}"
    )
    if not is_real:
        return (
            f"{reference} and {other} do not differ beyond chance on these users: {figures}. The "
            f"difference may be chance."
        )
    order = "better" if difference["mean"] > 0 else "worse"
    return f"{reference} is {order} than {other}: {figures}. The difference is real."
