from segue.data.log import read_log
from segue.data.sources import SOURCES


def test_list_names_every_dataset(command):
    names = [line.split()[0] for line in command("data", "list").out.splitlines()[1:]]
    assert names == SOURCES.names()


def test_fetch_prints_where_the_dataset_is(command, tmp_path, monkeypatch):
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    for name in ("ratings.csv", "movies.csv"):
        (folder / name).write_text("a,b\n")
    monkeypatch.setenv("SEGUE_DATA", str(tmp_path))
    assert command("data", "fetch", "ml-latest-small").out == f"{folder}\n"


def test_fetch_refuses_a_name_that_it_does_not_know(command):
    assert "ml-100k" in command("data", "fetch", "ml-99").refusal


def test_inspect_prints_the_logs_summary(command, log_file):
    outcome = command("data", "inspect", log_file, "--time-col", "timestamp")
    assert outcome.out == read_log(log_file).summary() + "\n"
