"""Which Keras backend: `KERAS_BACKEND` if set, else that of a Keras already imported, else jax.

Keras reads and writes `keras.json` in its home when it is first imported. segue does neither: it
points Keras at a home that cannot exist for the moment of that import.
"""

import os
import sys

from segue.errors import ConfigError

DEFAULT_BACKEND = "jax"
BACKENDS = ("jax", "torch", "tensorflow")


def load_keras() -> None:
    """Imports Keras on the chosen backend, if nobody has yet.

    Raises:
        ConfigError: `KERAS_BACKEND` names a backend that segue does not know or that is missing.
    """
    if "keras" in sys.modules:
        return
    backend = os.environ.setdefault("KERAS_BACKEND", DEFAULT_BACKEND)
    if backend not in BACKENDS:
        raise ConfigError(f"KERAS_BACKEND={backend!r} is not one of {', '.join(BACKENDS)}")
    home = os.environ.get("KERAS_HOME")
    os.environ["KERAS_HOME"] = os.path.join(os.devnull, "keras")
    try:
        import keras  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"KERAS_BACKEND={backend!r} needs the module {error.name!r}, which is not installed; "
            f"install segue[{backend}] or set KERAS_BACKEND={DEFAULT_BACKEND}"
        ) from None
    finally:
        if home is None:
            del os.environ["KERAS_HOME"]
        else:
            os.environ["KERAS_HOME"] = home
