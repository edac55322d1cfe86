"""A configuration as a preset file."""

from segue.config import Config


def preset_text(config: Config) -> str:
    """The configuration as a preset file, TOML; what is None is left to the default, None too."""
    lines = []
    for section, values in config.model_dump(mode="json").items():
        if isinstance(values, dict):
            lines.append(f"\n[{section}]")
            lines += [
                f"{key} = {_toml(value)}" for key, value in values.items() if value is not None
            ]
    return "\n".join(lines).strip() + "\n"


def _toml(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)
