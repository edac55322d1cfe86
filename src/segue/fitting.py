"""`fit`: from a log or a split to a `Recommender`, validated on the way."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.artifact import Run, check_catalogue
from segue.config import DEFAULT_PRESET, Config, DrawnLossConfig, load_preset
from segue.data.content import CONTENT, ContentEncoder
from segue.data.histories import Histories
from segue.data.items import Catalogue
from segue.data.log import InteractionLog
from segue.data.roles import ITEM
from segue.data.splits import HeldOut, Split, no_split
from segue.errors import DataError
from segue.evaluation.metrics import summarize
from segue.evaluation.protocol import rank_full
from segue.model.inference import compiled
from segue.model.kernels.device import block_sizes
from segue.model.negatives import NegativeSampler, generator
from segue.model.sequence_model import SequenceModel, build_model
from segue.model.weights import WeightViews
from segue.recommender import Recommender
from segue.retriever import EncodedScorer, ModelScorer
from segue.training.loop import train
from segue.training.memory import refuse_too_large
from segue.training.options import Session
from segue.training.placement import placement_of, prepare
from segue.training.plan import VALIDATION_STREAM, Plan

VALIDATION_BLOCK = 1_024  # users whose loss is taken at once, at most


def fit(
    log: InteractionLog | Histories | Split,
    *,
    validation: HeldOut | None = None,
    items: Catalogue | None = None,
    preset: str | Path | Config = DEFAULT_PRESET,
    session: Session = Session(),  # noqa: B008 - frozen
) -> Recommender:
    """Trains a recommender, and tests it where the split has a test part.

    Args:
        log: what to train on: a log or histories, all of it; or a split, its training part.
        validation: what decides the best weights and when to stop; by default the split's
            validation part, or nothing.
        items: titles and other columns of the items.
        preset: a preset's name, a preset file, or a configuration.
        session: checkpoints, progress and logs.

    Raises:
        ConfigError: no such preset.
        DataError: nothing to train on, a validation part of another log, or a column of the items
            that no run can hold.
        TrainingError: nothing to train on, more than fits into memory, a checkpoint that does not
            fit, or a loss that diverged.
        OutputError: a checkpoint or log cannot be written.
        Interrupted: Ctrl-C, after a checkpoint was written.
    """
    config = preset if isinstance(preset, Config) else load_preset(preset)
    split = log if isinstance(log, Split) else no_split(log)
    histories = split.train
    validation = validation or split.validation
    if validation and not validation.histories.vocabulary.equals(histories.vocabulary):
        raise DataError(
            "the validation part counts its items by another vocabulary; take both from one split"
        )
    catalogue = _aligned(items, histories)
    content = _learned_content(config, catalogue)
    item_counts = histories.item_counts()
    num_items = histories.vocabulary.num_items
    plan = Plan.of(histories, config)
    prepare(config, num_items, plan)
    refuse_too_large(num_items, plan, placement_of(config, num_items, plan))
    vectors = None if content is None or catalogue is None else content.vectors(catalogue)
    model = build_model(num_items, config, _with_content(catalogue, vectors))
    validate = None
    if validation:
        is_placed = None if vectors is None else np.append(False, vectors.any(axis=1))
        validate = Validation(model, validation, histories, config, is_placed=is_placed)
    curves = train(
        model,
        histories,
        config,
        validate,
        plan=plan,
        also=_inputs(split, validation),
        session=session,
    )
    training: dict[str, Any] = {
        "epochs": curves.epochs,
        "best_epoch": curves.best_epoch,
        "stopped_early": curves.stopped_early,
        "seconds": sum(epoch["seconds"] for epoch in curves.epochs),
        "validation_users": validation.num_users if validation else 0,
        "log": list(split.log_notes),
        "catalogue": list(items.notes) if items else [],
    }
    run = Run(
        config=config,
        weights=WeightViews(model),
        vocabulary=histories.vocabulary,
        catalogue=catalogue,
        item_counts=item_counts,
        split=split,
        training=training,
        ranking=None,
        report={},
        content=content,
    )
    recommender = Recommender(run, model)
    is_tested = isinstance(log, Split) and log.test is not None
    return recommender.with_report() if is_tested else recommender


class Validation:
    """Loss and ranking of a model on held-out targets, from one encoding of their histories."""

    def __init__(
        self,
        model: SequenceModel,
        held_out: HeldOut,
        train: Histories,
        config: Config,
        *,
        is_placed: npt.NDArray[np.bool_] | None = None,
        users_at_once: int = VALIDATION_BLOCK,
        numbers_at_once: int | None = None,
    ) -> None:
        """Measures `model`, as it is at each call, on `held_out`.

        Args:
            model: what is trained.
            held_out: histories and targets; a target that was never trained on has no part in the
                loss, and is a miss in the ranking unless the model knows its content.
            train: the training histories, for the negatives and for what was trained on.
            config: the loss and the seed.
            is_placed: bool[num_items + 1], the items whose content the model knows, trained or not.
            users_at_once: whose loss is taken together, at most.
            numbers_at_once: in the vectors of these users' negatives, at most; None: as suits the
                device.
        """
        self._held_out = held_out
        item_counts = train.item_counts()
        is_trained = item_counts > 0
        self._is_ranked = is_trained if is_placed is None else is_trained | is_placed
        self._scorer = ModelScorer(model, item_counts)
        self._loss = compiled(model, partial(_loss_of_queries, model))
        self._weights = is_trained[held_out.targets].astype(np.float32)
        self._block = users_at_once
        self._targets = {"positive_sequence": held_out.targets[:, None]}
        if isinstance(config.loss, DrawnLossConfig):
            self._targets["negative_sequence"] = _negatives(held_out, train, config)
            numbers = config.loss.negatives * config.model.width  # of a user's negatives' vectors
            most = numbers_at_once or block_sizes().negative_vectors
            self._block = max(1, min(self._block, most // numbers))

    def __call__(self) -> dict[str, float]:
        """`val_loss`, and `ndcg@10` and `hr@10` on the whole catalogue."""
        scorer = EncodedScorer(self._scorer, self._held_out.histories)
        ranking = rank_full(scorer, self._held_out, is_trained=self._is_ranked)
        summary = summarize(ranking.ranks)
        ranked = {name: summary[name] for name in ("ndcg@10", "hr@10")}
        return {"val_loss": self._loss_of(scorer.queries), **ranked}

    def _loss_of(self, queries: npt.NDArray[np.float32]) -> float:
        """The average over the users, a block of one shape at a time."""
        size = min(self._block, len(queries))
        total = 0.0
        for start in range(0, len(queries), size):
            users = np.arange(start, start + size)
            present = np.minimum(users, len(queries) - 1)
            weights = np.where(users < len(queries), self._weights[present], np.float32(0.0))
            targets = {name: each[present] for name, each in self._targets.items()}
            mean = self._loss(queries[present], targets, weights[:, None])
            total += float(mean) * float(weights.sum())
        return total / max(float(self._weights.sum()), 1.0)


def _loss_of_queries(model: SequenceModel, queries: Any, targets: Any, weights: Any) -> Any:
    return model.loss_at(queries[:, None, :], targets, weights)


def _negatives(held_out: HeldOut, train: Histories, config: Config) -> npt.NDArray[np.int32]:
    """int32[users, 1, negatives], the same at every validation, never a user's own target."""
    assert isinstance(config.loss, DrawnLossConfig)
    sampler = NegativeSampler.of(config.loss, train)
    if config.loss.exclude_history:
        histories = held_out.histories
        items = np.concatenate([histories.item_ids, held_out.targets])
        users = np.concatenate([histories.users, np.arange(held_out.num_users)])
        sampler = replace(sampler, known_keys=sampler.keys(users, items))
    shape = (held_out.num_users, 1, config.loss.negatives)
    random = generator(config.training.seed, VALIDATION_STREAM)
    return sampler.draw(random, shape, np.arange(held_out.num_users)[:, None])


def _inputs(split: Split, validation: HeldOut | None) -> list[Histories | npt.NDArray[Any]]:
    """What a resumed training must find unchanged, in addition to its training histories."""
    whole: list[Histories | npt.NDArray[Any]] = [split.histories, split.parts]
    if split.repeats:  # what is ranked in validation then differs
        whole.append(np.array([split.repeats]))
    return [*whole, validation.histories, validation.targets] if validation else whole


def _learned_content(config: Config, catalogue: pl.DataFrame | None) -> ContentEncoder | None:
    """What makes the vectors of content, where the item tower reads them.

    Raises:
        DataError: There is no catalogue, or it lacks a column.
    """
    columns = config.items.content_columns
    if not columns:
        return None
    if catalogue is None:
        raise DataError(
            f"the features {', '.join(columns)} are columns of the catalogue, and there is none; "
            f"give --items FILE (items= in Python)"
        )
    size, seed = config.items.content_numbers, config.training.seed
    return ContentEncoder.learned(catalogue, columns, size, seed)


def _with_content(
    catalogue: pl.DataFrame | None, vectors: npt.NDArray[np.float32] | None
) -> pl.DataFrame | None:
    """The catalogue with the vectors of content as one more column."""
    if catalogue is None or vectors is None:
        return catalogue
    return catalogue.with_columns(pl.Series(CONTENT, vectors))


def _aligned(items: Catalogue | None, histories: Histories) -> pl.DataFrame | None:
    """What a run keeps of the items, refused now and not after the training."""
    if items is None:
        return None
    catalogue = items.aligned(histories.vocabulary).drop(ITEM.name)
    check_catalogue(catalogue)
    return catalogue
