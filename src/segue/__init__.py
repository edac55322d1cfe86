"""segue learns what people choose next.

The public names load on first use, so that `import segue` brings in neither Keras nor JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segue.config import Config as Config
    from segue.config import LossConfig as LossConfig
    from segue.config import ModelConfig as ModelConfig
    from segue.config import TrainingConfig as TrainingConfig
    from segue.config import load_preset as load_preset
    from segue.data.histories import Histories as Histories
    from segue.data.inspection import inspect_log as inspect_log
    from segue.data.items import read_items as read_items
    from segue.data.log import read_log as read_log
    from segue.data.sources import load as load_dataset  # noqa: F401
    from segue.data.splits import global_time as global_time
    from segue.data.splits import last_basket as last_basket
    from segue.data.splits import leave_one_out as leave_one_out
    from segue.data.splits import no_split as no_split
    from segue.data.text_format import TextFormat as TextFormat
    from segue.errors import SegueError as SegueError
    from segue.fitting import fit as fit
    from segue.model.keras_model import SASRec as SASRec
    from segue.recommender import Recommender as Recommender
    from segue.training.options import Session as Session

__version__ = "0.1.0"

_HOMES = {
    "Config": "segue.config",
    "Histories": "segue.data.histories",
    "LossConfig": "segue.config",
    "ModelConfig": "segue.config",
    "Recommender": "segue.recommender",
    "SASRec": "segue.model.keras_model",
    "SegueError": "segue.errors",
    "Session": "segue.training.options",
    "TextFormat": "segue.data.text_format",
    "TrainingConfig": "segue.config",
    "fit": "segue.fitting",
    "global_time": "segue.data.splits",
    "inspect_log": "segue.data.inspection",
    "last_basket": "segue.data.splits",
    "leave_one_out": "segue.data.splits",
    "load_preset": "segue.config",
    "no_split": "segue.data.splits",
    "read_items": "segue.data.items",
    "read_log": "segue.data.log",
}

__all__ = sorted([*_HOMES, "load", "load_dataset"])


def __getattr__(name: str) -> Any:
    if name == "load":
        return import_module("segue.recommender").Recommender.load
    if name == "load_dataset":
        return import_module("segue.data.sources").load
    if name not in _HOMES:
        raise AttributeError(f"module 'segue' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
