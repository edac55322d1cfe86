"""Runs compared with each other and with the baselines, on the part that they held out."""

from collections.abc import Mapping
from typing import Any

from segue.artifact import Run
from segue.data.splits import HeldOut, Split
from segue.errors import RequestError
from segue.evaluation.als import ALS, INSTALL, has_als
from segue.evaluation.baselines import usual_baselines
from segue.evaluation.comparison import System, compare, refuse_other_held_out
from segue.evaluation.protocol import FULL, REQUEST_TIME_NOTE, Ranking, Scorer, rank_full

Baselines = tuple[dict[str, Scorer], list[str]]


def baselines_beside(split: Split) -> Baselines:
    """The usual baselines and, where its extra is installed, ALS; and a line for each left out."""
    train = split.train
    baselines, notes = usual_baselines(train, repeats=split.repeats)
    if has_als():
        baselines["als"] = ALS(train)
    else:
        notes.append(f"no als: the package implicit is missing; {INSTALL}")
    return baselines, notes


def compare_runs(
    runs: Mapping[str, Run], *, baselines: Baselines | None = None, seed: int = 0
) -> dict[str, Any]:
    """Runs and the baselines side by side, the whole catalogue ranked: see `comparison.compare`.

    Args:
        runs: By name; the first is compared with each of the others and each baseline.
        baselines: By default those that learn from the first run's training histories.
        seed: Of the resamples.

    Returns:
        As `comparison.compare`, with `protocol`, `split`, `users`, `candidates` and `notes`.

    Raises:
        RequestError: A run has no test part, or another one than the first.
    """
    (first_name, first), *others = runs.items()
    test = held_out_by(first, first_name)
    for name, run in others:
        refuse_other_held_out(first_name, test, name, held_out_by(run, name))
    systems = [System(name, ranking_of(run, name), is_baseline=False) for name, run in runs.items()]
    assert first.split is not None  # it has a test part
    scorers, notes = baselines or baselines_beside(first.split)
    is_trained = first.item_counts > 0
    for name, scorer in scorers.items():
        ranking = rank_full(scorer, test, is_trained=is_trained)
        systems.append(System(name, ranking, is_baseline=True))
    return {
        "protocol": FULL,
        "split": first.split.kind,
        "users": test.num_users,
        "candidates": first.vocabulary.num_items,
        **compare(systems, seed=seed),
        "notes": [*notes, *_request_time_notes(runs)],
    }


def _request_time_notes(runs: Mapping[str, Run]) -> list[str]:
    """Which runs knew when each target was asked for, where any did."""
    is_known = {name: run.report.get("request_time", False) for name, run in runs.items()}
    if not any(is_known.values()):
        return []
    if all(is_known.values()):
        return [REQUEST_TIME_NOTE]
    return [
        f"{name} {'knew' if known else 'did not know'} when each target was asked for"
        for name, known in is_known.items()
    ]


def held_out_by(run: Run, name: str) -> HeldOut:
    """The run's test part.

    Raises:
        RequestError: It has none.
    """
    if run.split is None or run.split.test is None:
        raise RequestError(
            f"{name} holds no test part, so there is nothing to measure on; fit with --split "
            f"leave-one-out or global-time"
        )
    return run.split.test


def ranking_of(run: Run, name: str) -> Ranking:
    """Where each test target came: as the run recorded it, or else ranked now."""
    test = held_out_by(run, name)
    recorded = run.ranking
    if (
        recorded is not None
        and recorded.user_ids.equals(test.histories.user_ids)
        and (recorded.targets == test.targets).all()
    ):
        return recorded
    from segue.recommender import Recommender  # only here does a comparison need the model
    from segue.retriever import ModelScorer

    scorer = ModelScorer(Recommender(run).model, run.item_counts)
    return rank_full(scorer, test, is_trained=run.is_placed)
