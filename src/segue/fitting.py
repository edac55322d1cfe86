"""`fit`: from a log or a split to a `Recommender`, validated on the way."""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.artifact import Run, check_catalogue
from segue.config import DEFAULT_PRESET, Config, load_preset
from segue.data.columns import ITEM
from segue.data.histories import Histories
from segue.data.items import Catalogue
from segue.data.log import InteractionLog
from segue.data.splits import HeldOut, Split, no_split
from segue.evaluation.metrics import summarize
from segue.evaluation.protocol import rank_full
from segue.model.encoder import compiled
from segue.model.negatives import NegativeSampler, generator
from segue.model.sasrec import SASRec
from segue.model.weights import weights_of
from segue.recommender import Recommender
from segue.scoring import ModelScorer
from segue.training.trainer import Session, build_model, train

VALIDATION_STREAM = 3  # keeps the validation's negatives apart from the training's


def fit(
    log: InteractionLog | Histories | Split,
    *,
    validation: HeldOut | None = None,
    items: Catalogue | None = None,
    preset: str | Path | Config = DEFAULT_PRESET,
    session: Session = Session(),  # noqa: B008 - frozen
) -> Recommender:
    """Trains a recommender.

    Args:
        log: what to train on: a log or histories, all of it; or a split, its training part.
        validation: what decides the best weights and when to stop; by default the split's
            validation part, or nothing.
        items: titles and other columns of the items.
        preset: a preset's name, a preset file, or a configuration.
        session: checkpoints, progress and logs.

    Raises:
        ConfigError: no such preset.
        DataError: nothing to train on, or a column of the items that no run can hold.
        TrainingError: nothing to train on, or a checkpoint that does not fit.
    """
    config = preset if isinstance(preset, Config) else load_preset(preset)
    split = log if isinstance(log, Split) else no_split(log)
    histories = split.train
    validation = validation or split.validation
    catalogue = _aligned(items, histories)
    item_counts = histories.item_counts()
    model = build_model(histories.vocabulary.num_items, config)
    validate = Validation(model, validation, histories, config) if validation else None
    started = time.perf_counter()
    curves = train(
        model, histories, config, validate, validation.histories if validation else None, session
    )
    training: dict[str, Any] = {
        "epochs": curves.epochs,
        "best_epoch": curves.best_epoch,
        "stopped_early": curves.stopped_early,
        "seconds": time.perf_counter() - started,
        "validation_users": validation.num_users if validation else 0,
    }
    return Recommender(
        Run(
            config=config,
            weights=weights_of(model),
            vocabulary=histories.vocabulary,
            catalogue=catalogue,
            item_counts=item_counts,
            split=split,
            training=training,
            ranking=None,
            report={},
        )
    )


class Validation:
    """Loss and ranking of a model on held-out targets, from one encoding of their histories."""

    def __init__(self, model: SASRec, held_out: HeldOut, train: Histories, config: Config) -> None:
        """Args:
        model: measured as it is at each call.
        held_out: histories and targets.
        train: the training histories, for the negatives and for what was trained on.
        config: the loss and the seed.
        """
        self._held_out = held_out
        self._is_trained = train.item_counts() > 0
        self._scorer = ModelScorer(model)
        self._loss = compiled(model, partial(_loss_of_queries, model))
        self._targets = {"positive_sequence": held_out.targets[:, None]}
        if config.loss.loss != "softmax":
            random = generator(config.training.seed, VALIDATION_STREAM)
            shape = (held_out.num_users, 1, config.loss.negatives)
            known = NegativeSampler.of(config.loss, held_out.histories).known_keys
            sampler = replace(NegativeSampler.of(config.loss, train), known_keys=known)
            users = np.arange(held_out.num_users)[:, None]
            self._targets["negative_sequence"] = sampler.draw(random, shape, users)

    def __call__(self, is_ranking_due: bool) -> dict[str, float]:
        """`val_loss`; where due also `ndcg@10` and `hr@10` on the whole catalogue."""
        queries = self._scorer.queries(self._held_out.histories, slice(None))
        measures = {"val_loss": float(self._loss(queries, self._targets))}
        if is_ranking_due:
            scorer = _ReadyQueries(queries, self._scorer.item_table)
            ranking = rank_full(scorer, self._held_out, is_trained=self._is_trained)
            summary = summarize(ranking.ranks)
            measures |= {name: summary[name] for name in ("ndcg@10", "hr@10")}
        return measures


@dataclass(frozen=True, eq=False)
class _ReadyQueries:
    """A scorer whose queries, float32[users, width], are computed already."""

    queries: npt.NDArray[np.float32]
    item_table: npt.NDArray[np.float32]

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        scores: npt.NDArray[np.float32] = self.queries[users] @ self.item_table.T
        return scores


def _loss_of_queries(model: SASRec, queries: Any, targets: Any) -> Any:
    return model.compute_loss(
        y=targets, y_pred={"item_sequence_embedding": queries[:, None, :]}, training=False
    )


def _aligned(items: Catalogue | None, histories: Histories) -> pl.DataFrame | None:
    """What a run keeps of the items, refused now and not after the training."""
    if items is None:
        return None
    catalogue = items.aligned(histories.vocabulary).drop(ITEM.name)
    check_catalogue(catalogue)
    return catalogue
