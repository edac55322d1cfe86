"""Which Keras backend: `KERAS_BACKEND` if set, else that of a Keras already imported, else jax.

Keras reads and writes `keras.json` in its home when it is first imported. segue does neither: it
points Keras at a home that cannot exist for the moment of that import.
"""

import importlib
import os
import sys

from segue.errors import ConfigError

DEFAULT_BACKEND = "jax"
BACKENDS = ("jax", "torch", "tensorflow")


def load_keras() -> None:
    """Imports Keras on the chosen backend, if nobody has yet.

    Raises:
        ConfigError: the backend is none that segue knows, or is not installed.
    """
    if "keras" not in sys.modules:
        _import_keras(os.environ.setdefault("KERAS_BACKEND", DEFAULT_BACKEND))
    import keras

    _refuse_unknown(keras.backend.backend())


def _import_keras(backend: str) -> None:
    _refuse_unknown(backend)
    home = os.environ.get("KERAS_HOME")
    os.environ["KERAS_HOME"] = os.path.join(os.devnull, "keras")
    try:
        importlib.import_module("keras")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"KERAS_BACKEND={backend} needs the module {error.name!r}, which is not installed; "
            f"install {backend}, or set KERAS_BACKEND to another of {', '.join(BACKENDS)}"
        ) from None
    finally:
        if home is None:
            del os.environ["KERAS_HOME"]
        else:
            os.environ["KERAS_HOME"] = home


def _refuse_unknown(backend: str) -> None:
    if backend not in BACKENDS:
        raise ConfigError(
            f"Keras' backend {backend!r} is not one of {', '.join(BACKENDS)}; set KERAS_BACKEND"
        )
