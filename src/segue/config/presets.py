"""Presets: configurations by name, a TOML file each, and files of one's own.

A preset's file has the sections of `Config`. A file of one's own may name another preset as `base`,
over which it is laid; without, it is laid over the default preset.
"""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import tomli_w

from segue.config.settings import Config, merged, validated
from segue.errors import ConfigError

DEFAULT_PRESET = "sasrec"
_DIRECTORY = Path(__file__).parent / "presets"


class _Presets(Mapping[str, Config]):
    """The presets that come with segue, each read when it is first asked for."""

    def __getitem__(self, name: str) -> Config:
        if name not in self.names():
            raise KeyError(name)
        return _preset(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def names(self) -> list[str]:
        """The default first, the others in the order of their names."""
        names = sorted(path.stem for path in _DIRECTORY.glob("*.toml"))
        return sorted(names, key=lambda name: name != DEFAULT_PRESET)


PRESETS: Mapping[str, Config] = _Presets()


@cache
def _preset(name: str) -> Config:
    path = _DIRECTORY / f"{name}.toml"
    return validated({"name": name, **_document(path)}, str(path))


def load_preset(name_or_path: str | Path) -> Config:
    """The preset of that name, or the one that a TOML file describes.

    Raises:
        ConfigError: no such preset or file, not TOML, an unknown key or a value out of range.
    """
    if str(name_or_path) in PRESETS:
        return PRESETS[str(name_or_path)]
    path = Path(name_or_path)
    if path.suffix != ".toml":
        raise ConfigError(
            f"unknown preset {str(name_or_path)!r}; the presets are {', '.join(PRESETS)}, "
            "or give a .toml file"
        )
    document = _document(path)
    base = document.pop("base", DEFAULT_PRESET)
    if not isinstance(base, str) or base not in PRESETS:
        raise ConfigError(f"{path} builds on base = {base!r}; the presets are {', '.join(PRESETS)}")
    changes = {"name": path.stem, **document}
    return validated(merged(PRESETS[base].model_dump(), changes), str(path))


def preset_text(config: Config) -> str:
    """The configuration as a preset file; what is None is left to the default, None too."""
    sections = {
        section: {name: value for name, value in values.items() if value is not None}
        for section, values in config.model_dump(mode="json").items()
        if isinstance(values, dict)
    }
    return tomli_w.dumps(sections)


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no preset file at {path}; check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read the preset file {path}: {error}") from None
