from segue.data import sources
from segue.data.items import read_items
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


def test_inspect_prints_what_the_log_is_like_and_the_command_that_trains_on_it(command, tmp_path):
    log = tmp_path / "my log.csv"
    log.write_text("who,item,time\n" + "".join(f"u{n % 3},{n},{n}\n" for n in range(30)) + ",1,2\n")
    outcome = command("data", "inspect", log, "--user-col", "who")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == f"{log}: 31 rows; the columns are 'who', 'item', 'time'"
    (fault,) = [line for line in lines if "null" in line]
    assert fault.startswith(
        "  user_id is null in 1 (3.2%) of the rows, first in row 31; drop these"
    )
    assert "  times              0 to 29; an order and no moments" in lines
    assert "  users              3; 0 (0.0%) have fewer than 3" in lines
    assert lines[-1] == f"  segue fit '{log}' --user-col who --drop-bad-rows --out RUN"


def test_inspect_tells_of_days_weights_events_and_sorted_ties(command, tmp_path):
    rows = [
        f"{user},{item},2024-01-0{1 + item // 4},{item % 5},{'view' if item % 2 else 'buy'}"
        for user in range(3)
        for item in range(12)
    ]
    log = tmp_path / "log.csv"
    log.write_text("user,item,date,rating,event\n" + "\n".join(rows) + "\nx,1,soon,1,buy\n")
    lines = {line.strip() for line in command("data", "inspect", log).out.splitlines()}
    assert (
        "times              2024-01-01T00:00:00 to 2024-01-03T00:00:00 (2 days), in whole days; "
        "datetimes" in lines
    )
    assert "events             buy 19 (51.4%), view 18 (48.6%)" in lines
    (weight,) = [line for line in lines if line.startswith("weight  ")]
    assert weight.endswith("50% 1.5, 75% 3, 90% 4, 99% 4, max 4; missing in 0 (0.0%)")
    (ties,) = [line for line in lines if line.startswith("ties")]
    assert ties.endswith("within them the item ids rise in 100.0%: sorted by a file")
    assert any("first 'soon' in row 37" in line for line in lines)
    assert any(line.startswith("--ties shuffle") for line in lines)


def test_what_is_given_already_is_not_advised_again(command, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\n1,1,1\n,2,2\n")
    outcome = command("data", "inspect", log, "--drop-bad-rows", "--json")
    assert outcome.json["command"] == f"segue fit {log} --drop-bad-rows --out RUN"


def test_inspect_gives_one_json_document(command, log_file):
    outcome = command("data", "inspect", log_file, "--json")
    assert outcome.err == ""
    found = outcome.json
    assert (found["rows"], found["problems"], found["faults"]) == (1440, [], [])
    assert found["description"]["users"] == 120
    assert found["description"]["history_lengths"]["50%"] == 12
    assert found["command"].startswith(f"segue fit {log_file}")
    assert found["columns"]["user_id"] == "user_id"


def test_inspect_of_an_unusable_log_tells_all_and_gives_no_command(command, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("person,thing\x1b[31m,time\na,b,\n")
    outcome = command("data", "inspect", log)
    assert outcome.code == 0
    assert "no column for user_id" in outcome.out
    assert "no column for item_id" in outcome.out
    assert "  timestamp is null in 1 (100.0%) of the rows, first in row 1; " in outcome.out
    assert "Next" not in outcome.out
    assert "\x1b" not in outcome.out
    assert command("data", "inspect", log, "--json").json["command"] is None


def test_inspect_takes_a_datasets_name(command, log_file, items_file, monkeypatch):
    load = (read_log(log_file), read_items(items_file))
    monkeypatch.setattr(sources, "load", lambda name, *, progress: load)
    assert command("data", "inspect", "ml-100k", "--json").json["rows"] == 1440


def test_inspect_refuses_what_is_not_there(command, tmp_path):
    assert "no such file" in command("data", "inspect", tmp_path / "log.csv").refusal
