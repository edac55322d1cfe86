"""The README's quickstarts run as they stand, on a small log in MovieLens' format."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
FILMS = (1270, 593, 2858, *range(1, 38))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ratings.dat and movies.dat: every user walks round the circle of the films."""
    lines = [
        f"{user}::{FILMS[(7 * user + step) % len(FILMS)]}::{3 + step % 3}::{1000 + step}"
        for user in range(1, 61)
        for step in range(12)
    ]
    (tmp_path / "ratings.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    films = [f"{film}::Café number {film} (1999)::Drama|Comedy" for film in FILMS]
    (tmp_path / "movies.dat").write_text("\n".join(films) + "\n", encoding="latin-1")
    return tmp_path


def block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", README.read_text("utf-8"), re.S | re.M)
    assert len(found) == 1
    return found[0]


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_python_quickstart_runs_and_recommends_titles(folder):
    output = run([sys.executable, "-c", block("python")], folder)
    assert "Café number" in output
    assert (folder / "runs/ml-1m/manifest.json").is_file()


@pytest.mark.slow
def test_the_command_line_quickstart_runs_and_recommends_titles(folder):
    output = run(["bash", "-ec", block("bash")], folder)
    assert output.count("Café number") >= 20
    assert (folder / "runs/films/report.json").is_file()
