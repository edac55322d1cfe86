import json
import subprocess
import sys

import pytest

import segue

FRAMEWORKS = {"keras", "jax", "torch", "tensorflow"}


def modules_after(code: str) -> set[str]:
    """The modules that a fresh Python has imported after running this code."""
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(told.stdout.splitlines()[-1]))


def test_importing_segue_brings_in_no_deep_learning_framework() -> None:
    assert not FRAMEWORKS & modules_after("import segue")


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["recommend", "--help"]])
def test_help_imports_no_framework_and_no_tables(arguments: list[str]) -> None:
    asking = f"from segue.cli import main\ntry: main({arguments})\nexcept SystemExit: pass"
    modules = modules_after(asking)
    assert "segue.cli.fit" in modules
    assert not {*FRAMEWORKS, "polars", "numpy"} & modules


def test_all_names_are_sorted_and_are_what_dir_offers() -> None:
    assert list(segue.__all__) == sorted(segue.__all__)
    assert set(dir(segue)) - {"__version__"} == set(segue.__all__)


def test_every_public_name_resolves() -> None:
    for name in segue.__all__:
        assert callable(getattr(segue, name)), name


def test_the_loaders_are_the_recommenders_and_the_datasets() -> None:
    from segue.data.sources import load
    from segue.recommender import Recommender

    assert segue.load == Recommender.load
    assert segue.load_dataset is load


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        segue.fits  # noqa: B018
