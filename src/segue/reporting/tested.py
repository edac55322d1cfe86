"""The sections of a report that need a test part: how good a run is, for whom, and examples."""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.labels import labels_of
from segue.data.roles import TITLE
from segue.data.splits import GLOBAL_TIME, TEST, HeldOut, Split
from segue.data.times import DAY_S, unix_seconds
from segue.evaluation import lists
from segue.evaluation.calibration import reliability, top_probabilities
from segue.evaluation.protocol import Ranking, Scorer
from segue.evaluation.slices import slices, slices_by_age
from segue.recommender import Recommender
from segue.reporting.attention import last_attention
from segue.reporting.runs import baselines_beside, compare_runs, held_out_by, ranking_of
from segue.retriever import EncodedScorer, ModelScorer

Section = dict[str, Any]

MAX_LABELS = 50  # a column with more labels groups nothing
RANK_ENDS = (1, 5, 10, 20, 50, 100, 500)
NUM_EXAMPLES = 5  # of each kind
NUM_ATTENTIONS = 3
SHOWN_HISTORY = 10
GOOD_RANK = 3
CALIBRATED_LOSSES = ("softmax", "sampled_softmax")


def measured(recommender: Recommender, name: str) -> dict[str, Section]:
    """The sections that need a test part."""
    run = recommender.run
    test = held_out_by(run, name)
    ranking = ranking_of(run, name)
    assert run.split is not None  # it has a test part
    train = run.split.train
    train_users = train.indices_of(test.histories.user_ids)
    column = label_column(run.catalogue)
    examples = _chosen(ranking)
    baselines = baselines_beside(run.split)
    scorer = EncodedScorer(ModelScorer(recommender.model, run.item_counts), test.histories)
    return {
        "headline": compare_runs({name: run}, baselines=baselines),
        "beyond": _beyond(recommender, test, {name: scorer, **baselines[0]}),
        "slices": {
            "slices": slices(
                ranking,
                test,
                run.item_counts,
                train.lengths[train_users],
                run.catalogue,
                [column] if column else [],
            )
        },
        "ranks": _ranks(ranking),
        "calibration": _calibration(recommender, test, scorer),
        "age": _age(run.split, ranking),
        "attention": _attention(recommender, test, examples),
        "examples": _examples(recommender, test, ranking, examples),
    }


def label_column(catalogue: pl.DataFrame | None) -> str | None:
    """The column that groups items: `genres`, or the first text or lists of few labels."""
    if catalogue is None:
        return None
    texts = [
        column.name
        for column in catalogue
        if column.dtype in (pl.String, pl.List(pl.String)) and column.name != TITLE.name
    ]
    for name in sorted(texts, key=lambda each: each != "genres"):
        labels = labels_of(catalogue[name].drop_nulls()).explode()
        if 1 < labels.n_unique() <= MAX_LABELS:
            return name
    return None


def _beyond(recommender: Recommender, test: HeldOut, systems: Mapping[str, Scorer]) -> Section:
    """Coverage, novelty, popularity and diversity of the top 10, for the model and baselines."""
    run = recommender.run
    assert run.split is not None  # it has a test part
    train = run.split.train
    item_users = lists.users_of_items(train)
    num_users = int(np.count_nonzero(train.lengths))
    is_trained = run.is_placed
    column = label_column(run.catalogue)
    embeddings = recommender.retriever.item_table
    found: dict[str, dict[str, float]] = {}
    for system, scorer in systems.items():
        top = lists.top_lists(scorer, test, is_trained=is_trained)
        found[system] = {
            "coverage": lists.coverage(top, run.vocabulary.num_items),
            "novelty": lists.novelty(top, item_users, num_users),
            "average popularity": lists.average_popularity(top, run.item_counts),
            "long-tail share": lists.long_tail_share(top, run.item_counts),
        }
        if top.shape[1] > 1 and (top[:, 1] > 0).any():
            found[system]["diversity (embedding)"] = lists.intra_list_diversity(top, embeddings)
            if column is not None and run.catalogue is not None:
                labels = lists.label_features(run.catalogue[column])
                found[system][f"diversity ({column})"] = lists.intra_list_diversity(top, labels)
    return {"k": top.shape[1], "systems": found}


def _ranks(ranking: Ranking) -> Section:
    """How many users' targets came in which places; the misses last."""
    ends = [0, *(end for end in RANK_ENDS if end < ranking.candidates.max())]
    ends.append(int(ranking.candidates.max()))
    groups = []
    for before, end in pairwise(ends):
        place = str(end) if end == before + 1 else f"{before + 1:,} to {end:,}"
        is_in = (ranking.ranks > before) & (ranking.ranks <= end)
        groups.append({"places": place, "users": int(np.count_nonzero(is_in))})
    misses = int(np.count_nonzero(ranking.ranks == 0))
    return {"groups": [*groups, {"places": "a miss", "users": misses}]}


def _calibration(recommender: Recommender, test: HeldOut, scorer: Scorer) -> Section:
    """Whether the probabilities of each user's top 10 come true as often as they say."""
    loss = recommender.run.config.loss.loss
    if loss not in CALIBRATED_LOSSES:
        return {
            "missing": f"The loss {loss} makes scores that are no probabilities over the "
            f"catalogue; {' and '.join(CALIBRATED_LOSSES)} do."
        }
    users = np.flatnonzero(test.histories.lengths)
    if not users.size:
        return {"missing": "No test user has a history."}
    probabilities, is_target = top_probabilities(scorer, test)
    probabilities, is_target = probabilities[users], is_target[users]
    is_shown = probabilities > 0
    found = reliability(probabilities[is_shown], is_target[is_shown])
    return {"k": probabilities.shape[1], "users": len(users), **asdict(found)}


def _age(split: Split, ranking: Ranking) -> Section:
    if split.kind != GLOBAL_TIME:
        return {
            "missing": f"The split {split.kind} trains on what happened up to the end of the log, "
            f"so the model has no age at a target; fit with --split global-time."
        }
    seconds = unix_seconds(split.histories.timestamps, split.histories.unit)
    if seconds is None:
        return {
            "missing": "The log's times are an order, such as positions, and no moments, so that "
            "no age in days is known."
        }
    places = np.flatnonzero(split.parts == TEST)
    firsts = np.unique(split.histories.users[places], return_index=True)[1]
    trained_until = seconds[split.parts == 0].max()
    ages = (seconds[places[firsts]] - trained_until) / DAY_S
    return {"slices": slices_by_age(ranking, ages)}


def _chosen(ranking: Ranking) -> dict[str, npt.NDArray[np.intp]]:
    """Users to show, by index: drawn among the good ranks and among the worst quarter."""
    rng = np.random.default_rng(0)
    badness = np.where(ranking.ranks == 0, np.iinfo(np.int32).max, ranking.ranks)
    is_good = badness <= GOOD_RANK
    is_bad = (badness >= np.quantile(badness, 0.75)) & ~is_good
    return {
        kind: np.sort(rng.permutation(np.flatnonzero(is_kind))[:NUM_EXAMPLES])
        for kind, is_kind in (("good", is_good), ("bad", is_bad))
    }


def _examples(
    recommender: Recommender,
    test: HeldOut,
    ranking: Ranking,
    chosen: Mapping[str, npt.NDArray[np.intp]],
) -> Section:
    users = np.concatenate(list(chosen.values()))
    kinds = [kind for kind, members in chosen.items() for _ in members]
    histories = test.histories.take(users)
    answers = recommender.recommend_histories(histories, 5)
    recommended = dict(answers.group_by("user_id").agg("item_id").iter_rows())
    shown = []
    for place, (user, kind) in enumerate(zip(users, kinds, strict=True)):
        user_id = histories.user_ids[place]
        newest = histories.items_of(place)[-SHOWN_HISTORY:]
        shown.append(
            {
                "kind": kind,
                "user_id": user_id,
                "history": recommender.titles(list(recommender.vocabulary.decode(newest))),
                "history_length": int(histories.lengths[place]),
                "recommended": recommender.titles(recommended.get(user_id, [])),
                "truth": _title(recommender, int(test.targets[user])),
                "rank": int(ranking.ranks[user]),
            }
        )
    return {"users": shown}


def _attention(
    recommender: Recommender, test: HeldOut, chosen: Mapping[str, npt.NDArray[np.intp]]
) -> Section:
    if not recommender.model.is_attentive:
        return {
            "missing": f"The encoder {recommender.run.config.model.encoder} attends to nothing."
        }
    users = np.concatenate([members[:2] for members in chosen.values()])
    users = users[test.histories.lengths[users] > 0][:NUM_ATTENTIONS]
    shown = []
    for user in users:
        columns = test.histories.columns(recommender.retriever.max_length, np.array([user]))
        weights = last_attention(recommender.model, columns)
        window = columns.item_ids[0, : len(weights)]
        titles = recommender.titles(list(recommender.vocabulary.decode(window)))
        first = max(0, len(window) - SHOWN_HISTORY)
        shown.append(
            {
                "user_id": test.histories.user_ids[int(user)],
                "older_weight": float(weights[:first].sum()),
                "older_items": first,
                "items": [
                    {"title": titles[place], "weight": float(weights[place])}
                    for place in range(first, len(window))
                ],
            }
        )
    return {"histories": shown} if shown else {"missing": "No test user has a history."}


def _title(recommender: Recommender, dense_id: int) -> str:
    ids = recommender.vocabulary.decode(np.array([dense_id], np.int32))
    return recommender.titles(list(ids))[0]
