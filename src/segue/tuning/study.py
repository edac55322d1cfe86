"""A search on disk: an Optuna study in a SQLite file, tied to what it measured."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
from optuna import Study
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from segue.errors import DataError, OutputError
from segue.training.checkpoint import Inputs

NAME = "segue"
DATA, CONFIG = "data", "config"


@contextmanager
def open_study(path: Path, inputs: Inputs) -> Iterator[Study]:
    """The study in a file, new or gone on with; what was running when it was left has failed.

    One search at a time works on a study.

    Args:
        path: A SQLite file.
        inputs: What its trials are made of, which must be that of the trials before.

    Raises:
        DataError: The study is of another log, split or preset.
        OutputError: The file cannot be written, or is no study.
    """
    is_new = not path.exists()
    if not is_new:
        _refuse_foreign(path)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = RDBStorage(URL.create("sqlite", database=str(path)).render_as_string())
        study = optuna.create_study(
            storage=storage, study_name=NAME, direction="maximize", load_if_exists=True
        )
    except SQLAlchemyError as error:
        raise OutputError(f"cannot write the study {path}: {error}; choose another file") from None
    try:
        if is_new:
            study.set_user_attr(DATA, inputs.data)
            study.set_user_attr(CONFIG, inputs.config.model_dump(mode="json"))
        _refuse_other_inputs(study, path, inputs)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
        yield study
    except UpdateFinishedTrialError:
        raise OutputError(
            f"another search has taken over the study {path}; let one at a time work on it"
        ) from None
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _refuse_foreign(path: Path) -> None:
    """Refuse a file that a search did not make, before anything is written to it."""
    remedy = "choose another --study, or remove it"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            names = {name for (name,) in database.execute("select study_name from studies")}
    except sqlite3.Error as error:
        raise OutputError(f"{path} is no study of segue tune ({error}); {remedy}") from None
    if NAME not in names:
        raise OutputError(f"{path} is no study of segue tune; {remedy}")


def _refuse_other_inputs(study: Study, path: Path, inputs: Inputs) -> None:
    remedy = "name another --study, or ask for what it began with"
    if study.user_attrs.get(DATA) != inputs.data:
        raise DataError(f"the study {path} is of another log, split or validation part; {remedy}")
    if study.user_attrs.get(CONFIG) != inputs.config.model_dump(mode="json"):
        raise DataError(f"the study {path} is of another preset or other settings; {remedy}")
