import pytest

from segue.config import PRESETS, load_preset
from segue.reporting.presets import preset_text


@pytest.mark.parametrize("name", PRESETS)
def test_the_preset_reads_back_as_the_configuration(name, tmp_path):
    path = tmp_path / f"{PRESETS[name].name}.toml"
    path.write_text(preset_text(PRESETS[name]))
    assert load_preset(path) == PRESETS[name]
