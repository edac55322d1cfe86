"""The report on one run as one document ready for JSON; the page only draws it.

A section whose data the run lacks is `{"missing": why}`.
"""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.artifact.documents import read_json
from segue.artifact.manifest import MANIFEST
from segue.artifact.placing import resolved
from segue.config import Config, preset_text
from segue.data.labels import labels_of
from segue.data.splits import Split
from segue.data.times import unix_seconds
from segue.recommender import Recommender
from segue.reporting.tested import Section, label_column, measured

MAP_ITEMS = 1_500
MAP_LABELS = 6
PACKAGES = ("segue", "keras", "jax", "numpy", "polars", "scipy", "implicit")


def describe(path: str | Path) -> dict[str, Any]:
    """The report on a run, section by section.

    Args:
        path: The run's directory.

    Raises:
        RunError: There is no run, or it is damaged.
    """
    recommender = Recommender.load(path)
    name = resolved(path).name
    run = recommender.run
    document = {"run": name, "segue": _versions().get("segue", "unknown")}
    is_tested = run.split is not None and run.split.test is not None
    tested = measured(recommender, name) if is_tested else _unmeasured()
    return {
        **document,
        **tested,
        "curves": _curves(run.training),
        "map": _map(recommender),
        "data": _data(recommender),
        "protocol": _protocol(recommender, Path(path)),
        "reproduce": _reproduce(run.config, run.split),
    }


def _unmeasured() -> dict[str, Section]:
    missing = {"missing": "The run holds no test part: it was fitted on everything."}
    sections = (
        *("headline", "beyond", "slices", "ranks", "calibration"),
        *("age", "attention", "examples"),
    )
    return dict.fromkeys(sections, missing)


def _curves(training: Mapping[str, Any]) -> Section:
    epochs = training.get("epochs") or []
    if not epochs:
        return {"missing": "The run holds no training curves."}
    return {"epochs": epochs, "best_epoch": training.get("best_epoch")}


def _map(recommender: Recommender) -> Section:
    """The most popular items in the plane of the two directions in which embeddings differ most."""
    run = recommender.run
    column = label_column(run.catalogue)
    counts = run.item_counts[1:]
    chosen = np.sort(np.argsort(-counts, kind="stable")[:MAP_ITEMS])
    table = recommender.retriever.item_table[1:][chosen].astype(np.float64)
    if min(table.shape) < 2:
        return {"missing": "A map needs two items and two dimensions."}
    centred = table - table.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    plane = centred @ directions[:2].T
    share = float((singular[:2] ** 2).sum() / max((singular**2).sum(), np.finfo(float).tiny))
    labels = _first_labels(run.catalogue, column, chosen)
    titles = recommender.titles(list(run.vocabulary.decode((chosen + 1).astype(np.int32))))
    return {
        "column": column,
        "explained_variance": share,
        "labels": sorted(set(labels), key=lambda each: (each == "other", each)),
        "points": [
            {"x": round(float(x), 4), "y": round(float(y), 4), "title": title, "label": label}
            for (x, y), title, label in zip(plane, titles, labels, strict=True)
        ],
    }


def _first_labels(
    catalogue: pl.DataFrame | None, column: str | None, chosen: npt.NDArray[np.intp]
) -> list[str]:
    """The first label of each item; those that are not among the most frequent are "other"."""
    if catalogue is None or column is None:
        return ["other"] * len(chosen)
    firsts = labels_of(catalogue[column].gather(chosen)).list.first().fill_null("other")
    frequent = firsts.value_counts(sort=True)[column].head(MAP_LABELS).to_list()
    return [label if label in frequent else "other" for label in firsts]


def _data(recommender: Recommender) -> Section:
    run = recommender.run
    counts = run.item_counts[1:]
    found: Section = {
        "items": run.vocabulary.num_items,
        "items never trained on": int(np.count_nonzero(counts == 0)),
        "training interactions": int(counts.sum()),
        "catalogue columns": run.catalogue.columns if run.catalogue is not None else [],
    }
    if run.split is None:
        return found
    histories = run.split.histories
    lengths = histories.lengths
    seconds = unix_seconds(histories.timestamps, histories.unit)
    found |= {
        "users": histories.num_users,
        "interactions": histories.num_interactions,
        "median history": float(np.median(lengths)) if len(lengths) else 0.0,
        "longest history": int(lengths.max(initial=0)),
        "density": histories.num_interactions
        / max(1, histories.num_users * run.vocabulary.num_items),
        "first interaction": _day(seconds.min()) if seconds is not None else "unknown: an order",
        "last interaction": _day(seconds.max()) if seconds is not None else "unknown: an order",
        "split": list(run.split.notes),
        "log": run.training.get("log", []),
    }
    return found


def _day(second: float) -> str:
    return str(np.datetime64(int(second), "s").astype("datetime64[D]"))


def _protocol(recommender: Recommender, path: Path) -> Section:
    run = recommender.run
    files = read_json(resolved(path) / MANIFEST)["files"]
    return {
        "ranking": "Every item of the catalogue is ranked; the history's are left out; ties count "
        "against the model; a target never trained on, or seen before, is a miss.",
        "split": run.split.kind if run.split else "none",
        "seed": run.config.training.seed,
        "training seconds": run.training.get("seconds"),
        "validation users": run.training.get("validation_users"),
        "intervals": "95% percentile bootstrap over the users, 1,000 resamples, seed 0",
        "p-values": "paired bootstrap over the users, 2,000 resamples, Holm's correction",
        "versions": {"python": platform.python_version(), **_versions()},
        "sha256": {name: record["sha256"] for name, record in files.items()},
    }


def _versions() -> dict[str, str]:
    """The packages that measured the run now; training may have used others."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # from a source tree, or another backend
            continue
    return found


def _reproduce(config: Config, split: Split | None) -> Section:
    kind = split.kind if split else "none"
    return {
        "preset": preset_text(config),
        "command": f"segue fit LOG --out RUN --split {kind} --preset preset.toml",
        "note": "LOG is the log whose histories have the SHA-256 above; on the same machine, "
        "backend and versions the same weights come out.",
    }
