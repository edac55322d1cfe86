import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from segue.data import sources
from segue.data.items import read_items
from segue.data.log import read_log
from segue.data.splits import global_time
from segue.recommender import Recommender
from segue.training.checkpoint import FILE_NAME
from segue.training.options import Session


def save_log(path: Path, users: list[Any], items: list[Any], times: list[Any]) -> Path:
    pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times}).write_parquet(path)
    return path


def test_fit_writes_a_run_and_prints_its_figures_beside_the_baselines(
    command, log_file, items_file, tmp_path, tiny
):
    target = tmp_path / "runs" / "new"
    log = ["fit", log_file, "--items", items_file, "--validation-users", "40"]
    outcome = command(*log, "--out", target, *tiny)
    assert outcome.code == 0, outcome.err
    made = Recommender.load(target)
    assert made.run.config.model.width == 16
    assert made.run.training["validation_users"] == 40
    assert made.titles([7]) == ["Café 7"]
    metrics = made.run.report["metrics"]
    assert f"{metrics['ndcg@10']:.4f}" in outcome.out
    lines = outcome.out.splitlines()
    assert [line.split()[0] for line in lines if line[:5] in ("model", "popul", "item_")] == [
        "model",
        "popularity",
        "item_knn",
    ]
    assert f"  segue recommend {target} --user 1" in lines
    assert "1,440 interactions of 120 users with 30 items" in outcome.err
    assert "epoch 2/2" in outcome.err
    assert os.listdir(target.parent) == ["new"]


def test_the_log_may_be_a_datasets_name_whose_titles_come_along(
    command, no_training, log_file, items_file, tmp_path, monkeypatch
):
    def load(name: str, *, progress: bool) -> Any:
        assert (name, progress) == ("ml-100k", True)
        return read_log(log_file), read_items(items_file)

    monkeypatch.setattr(sources, "load", load)
    assert command("fit", "ml-100k", "--out", tmp_path / "new").code == 0
    assert no_training[0]["items"].frame["title"][0] == "Café 1"


def test_a_path_that_exists_wins_over_a_datasets_name(
    command, no_training, log_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ml-100k").mkdir()
    shutil.copy(log_file, tmp_path / "ml-100k" / "log.parquet")
    assert command("fit", "ml-100k", "--out", "new").code == 0
    assert no_training[0]["split"].histories.num_users == 120


def test_columns_weights_and_filters_are_chosen_by_options(command, no_training, tmp_path):
    log = pl.DataFrame(
        {
            "who": ["a"] * 6 + ["b"] * 4 + ["c"] * 2,
            "what": [1, 2, 3, 4, 1, 1, 1, 2, 3, 4, 1, 2],
            "when": [1, 2, 3, 4, 5, 5, 1, 2, 3, 4, 1, 2],
            "stars": [5, 5, 5, 1, 5, 5, 5, 5, 5, None, 5, 5],
        }
    )
    log.write_csv(tmp_path / "log.csv")
    outcome = command(
        *("fit", tmp_path / "log.csv", "--out", tmp_path / "new"),
        *("--user-col", "who", "--item-col", "what", "--time-col", "when"),
        *("--weight-col", "stars", "--min-weight", "2"),
        *("--drop-duplicates", "--min-history", "3"),
    )
    assert outcome.code == 0, outcome.err
    # Of a, the weak 4 and the second 1 at the time 5 leave; of b, the unrated 4; c is short.
    histories = no_training[0]["split"].histories
    assert histories.user_ids.to_list() == ["a", "b"]
    assert histories.lengths.tolist() == [4, 3]


@pytest.fixture
def books(tmp_path: Path) -> tuple[Path, Path]:
    """A log by `sku`, and a catalogue in which two columns could be the items' ids and titles."""
    log = tmp_path / "log.csv"
    log.write_text("user,sku,time\n" + "".join(f"u,s{n},{n}\n" for n in range(1, 5)))
    items = tmp_path / "items.csv"
    items.write_text("isbn,sku,name,label\n" + "".join(f"{n},s{n},N{n},L{n}\n" for n in (1, 2)))
    return log, items


def titles(asked: list[dict[str, Any]]) -> list[Any]:
    return asked[0]["items"].frame.select("item_id", "title").rows()


def test_a_catalogues_item_column_is_that_of_the_log(command, no_training, books, tmp_path):
    outcome = command("fit", books[0], "--items", books[1], "--out", tmp_path / "new")
    assert titles(no_training) == [("s1", "N1"), ("s2", "N2")]
    assert "items: item_id is read from the column 'sku'" in outcome.err


def test_a_catalogues_columns_are_chosen_by_options(command, no_training, books, tmp_path):
    log, items = books
    chosen = ("--items-id-col", "isbn", "--items-title-col", "label")
    command("fit", log, "--items", items, *chosen, "--out", tmp_path / "new")
    assert titles(no_training) == [(1, "L1"), (2, "L2")]


def test_a_catalogues_lists_are_chosen_by_an_option(command, no_training, books, tmp_path):
    log, items = books
    items.write_text("sku,kind,title\ns1,a|b,x|y\n")
    command("fit", log, "--items", items, "--list-col", "kind", "--out", tmp_path / "new")
    (row,) = no_training[0]["items"].frame.select("kind", "title").rows()
    assert row == (["a", "b"], "x|y")


def test_text_without_a_header_and_in_other_encodings_is_read_by_options(
    command, no_training, tmp_path
):
    log, items = tmp_path / "log.csv", tmp_path / "items.csv"
    rows = [f"u,s{n},pv,{n}" for n in range(1, 5)]
    log.write_text("\n".join(rows), "utf-16-le")
    items.write_text("sku,title\ns1,Жизнь\n", "cp1251")
    outcome = command(
        *("fit", log, "--no-header", "--columns", "user, sku, _, time", "--encoding", "utf-16-le"),
        *("--items", items, "--items-encoding", "cp1251", "--out", tmp_path / "new"),
    )
    assert outcome.code == 0, outcome.err
    assert no_training[0]["split"].histories.lengths.tolist() == [4]
    assert titles(no_training) == [("s1", "Жизнь")]


def test_an_item_with_two_rows_is_refused_where_that_is_asked_for(
    command, no_training, books, tmp_path
):
    log, items = books
    items.write_text(items.read_text() + "3,s1,N3,L3\n")
    arguments = ("fit", log, "--items", items, "--out", tmp_path / "new")
    assert "second row" in command(*arguments, "--refuse-duplicate-items").refusal
    outcome = command(*arguments)
    assert titles(no_training) == [("s1", "N1"), ("s2", "N2")]
    assert "items: dropped 1 of 3 rows" in outcome.err


def test_what_was_dropped_is_printed_and_kept_with_the_run(
    command, log_file, items_file, tmp_path, tiny
):
    frame = pl.read_parquet(log_file)
    broken = tmp_path / "log.parquet"
    no_user = frame.head(3).with_columns(user_id=pl.lit(None, frame.schema["user_id"]))
    pl.concat([frame, no_user]).write_parquet(broken)
    arguments = ("fit", broken, "--items", items_file, "--out", tmp_path / "new", *tiny)
    assert "--drop-bad-rows" in command(*arguments).refusal
    outcome = command(*arguments, "--drop-bad-rows")
    assert "dropped 3 of 1,443 rows: user_id is null" in outcome.err
    training = json.loads((tmp_path / "new" / "training.json").read_text())
    assert any(note.startswith("dropped 3 of 1,443 rows") for note in training["log"])


def test_ties_are_shuffled_by_the_trainings_seed(command, no_training, tmp_path):
    times = [n // 5 for n in range(30)]
    log = save_log(tmp_path / "log.parquet", [1] * 30, list(range(30)), times)
    arguments = ("fit", log, "--out", tmp_path / "new", "--force")
    assert "warning: of 29 neighbours" in command(*arguments).err
    assert "warning" not in command(*arguments, "--ties", "shuffle").err
    command(*arguments, "--ties", "shuffle", "--set", "seed=1")
    orders = [asked["split"].histories.item_ids.tolist() for asked in no_training]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order[:5]) == [1, 2, 3, 4, 5] for order in orders)


def test_kinds_of_events_are_chosen_and_repeats_joined(command, no_training, tmp_path):
    kinds = ["view", "cart", "buy"] * 5
    log = pl.DataFrame(
        {
            "user_id": [1] * 15,
            "item_id": [place // 3 for place in range(15)],
            "timestamp": range(15),
            "what": kinds,
        }
    )
    log.write_csv(tmp_path / "log.csv")
    outcome = command(
        *("fit", tmp_path / "log.csv", "--out", tmp_path / "new"),
        *("--event-col", "what", "--events", "cart, buy", "--join-repeats"),
    )
    assert outcome.code == 0, outcome.err
    histories = no_training[0]["split"].histories
    assert histories.timestamps.tolist() == [1, 4, 7, 10, 13]
    assert "dropped 5 of 15 events that are not cart, buy (what: " in outcome.err
    assert "dropped 5 of 10 interactions that repeat the item before them" in outcome.err


def test_core_leaves_users_and_items_that_have_so_many(command, no_training, tmp_path):
    users = [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    items = [1, 2, 3, 1, 2, 3, 1, 2, 3, 9]
    log = save_log(tmp_path / "log.parquet", users, items, list(range(10)))
    assert command("fit", log, "--out", tmp_path / "new", "--core", "3").code == 0
    assert no_training[0]["split"].histories.vocabulary.ids.to_list() == [1, 2, 3]


def test_the_session_is_as_the_options_say(command, no_training, log_file, tmp_path):
    (tmp_path / "new.checkpoint").mkdir()
    (tmp_path / "new.checkpoint" / FILE_NAME).touch()
    outcome = command(
        *("fit", log_file, "--out", tmp_path / "new", "--resume", "--checkpoint-every", "7"),
        *("--csv-log", tmp_path / "curves.csv", "--tensorboard", tmp_path / "events"),
    )
    assert outcome.code == 0, outcome.err
    assert no_training[0]["session"] == Session(
        checkpoint=tmp_path / "new.checkpoint",
        checkpoint_every_s=7.0,
        resume=True,
        show_progress=True,
        csv_log=tmp_path / "curves.csv",
        tensorboard=tmp_path / "events",
    )


def test_resuming_without_a_checkpoint_is_refused_before_the_log_is_read(command, tmp_path):
    outcome = command("fit", tmp_path / "no.csv", "--out", tmp_path / "new", "--resume")
    assert outcome.code == 1
    assert "no checkpoint at" in outcome.err


def test_a_session_that_means_nothing_is_refused_before_the_log_is_read(command, tmp_path):
    fit = ("fit", tmp_path / "no.csv", "--out", tmp_path / "new")
    outcome = command(*fit, "--checkpoint-every", "-1")
    assert outcome.code == 1
    assert "checkpoint_every_s=-1.0 (--checkpoint-every)" in outcome.err


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_csv_log_never_replaces_an_input_nor_an_older_one_unasked(
    force, command, no_training, log_file, tmp_path
):
    before = log_file.read_bytes()
    fit = ("fit", log_file, "--out", tmp_path / "new", *force)
    outcome = command(*fit, "--csv-log", log_file)
    assert outcome.code == 1
    assert "is an input of this training" in outcome.err
    assert log_file.read_bytes() == before
    (tmp_path / "old.csv").touch()
    assert command(*fit, "--csv-log", tmp_path / "old.csv").code == (0 if force else 1)
    assert command(*fit, "--csv-log", tmp_path / "none" / "new.csv").code == 1
    assert "is a directory; name a file" in command(*fit, "--csv-log", tmp_path).err


def test_the_users_to_validate_on_are_counted(command, no_training, log_file, tmp_path):
    (tmp_path / "users.csv").write_text("user_id\n1\n2\nnobody\n")
    fit = ("fit", log_file, "--out", tmp_path / "new", "--validation-users")
    assert "validating on 2 of the 3 users asked for" in command(*fit, tmp_path / "users.csv").err
    (tmp_path / "bare.txt").write_text("1\n2\n")
    outcome = command(*fit, tmp_path / "bare.txt", "--force")
    assert outcome.code == 1
    assert "needs a column user_id" in outcome.err


def test_the_split_none_trains_on_everything_and_reports_nothing(
    command, no_training, log_file, tmp_path
):
    outcome = command("fit", log_file, "--out", tmp_path / "new", "--split", "none")
    assert outcome.code == 0, outcome.err
    assert no_training[0]["split"].kind == "none"
    assert no_training[0]["validation"] is None
    assert "model" not in outcome.out
    assert "segue evaluate" not in outcome.out


def test_the_split_global_time_cuts_at_moments(command, no_training, log_file, tmp_path):
    outcome = command("fit", log_file, "--out", tmp_path / "new", "--split", "global-time")
    assert outcome.code == 0, outcome.err
    expected = global_time(read_log(log_file)).parts
    assert (no_training[0]["split"].parts == expected).all()


def test_the_moments_of_global_time_may_be_given(command, no_training, log_file, tmp_path):
    log = read_log(log_file)
    first, second = (int(log.frame["timestamp"].quantile(share)) for share in (0.5, 0.7))
    moments = ["--validation-from", first, "--test-from", second]
    outcome = command(
        "fit", log_file, "--out", tmp_path / "new", "--split", "global-time", *moments
    )
    assert outcome.code == 0, outcome.err
    split = no_training[0]["split"]
    times = split.histories.timestamps
    assert (split.parts == (times >= first).astype(int) + (times >= second)).all()


@pytest.mark.parametrize("option", ["--validation-from", "--test-from"])
def test_moments_are_refused_where_the_split_reads_none(
    command, no_training, log_file, tmp_path, option
):
    outcome = command("fit", log_file, "--out", tmp_path / "new", option, "2024-01-05")
    assert outcome.code == 1
    assert (
        f"{option} 2024-01-05 needs --split global-time, got --split leave-one-out" in outcome.err
    )
    assert no_training == []


def test_validation_users_may_be_listed_in_a_file(command, no_training, log_file, tmp_path):
    (tmp_path / "users.csv").write_text("userId\n3\n5\n999\n")
    chosen = ["--validation-users", tmp_path / "users.csv"]
    assert command("fit", log_file, "--out", tmp_path / "new", *chosen).code == 0
    assert no_training[0]["validation"].histories.user_ids.to_list() == [3, 5]


def test_a_forgotten_checkpoint_is_refused_and_given_up_with_force(
    command, no_training, log_file, tmp_path
):
    checkpoint = tmp_path / "new.checkpoint"
    checkpoint.mkdir()
    for name in ("state.safetensors", ".state.safetensors.123"):
        (checkpoint / name).write_bytes(b"half a training")
    line = command("fit", log_file, "--out", tmp_path / "new").refusal
    assert "--resume" in line
    assert "--force" in line
    assert not no_training
    assert len(list(checkpoint.iterdir())) == 2
    assert command("fit", log_file, "--out", tmp_path / "new", "--force").code == 0
    assert not checkpoint.exists()


@pytest.mark.parametrize("name", ["new", "new.checkpoint"])
@pytest.mark.parametrize("option", [[], ["--force"], ["--resume"]])
def test_a_training_that_goes_on_is_refused_with_its_process_and_keeps_its_checkpoint(
    command, no_training, log_file, tmp_path, other_writer, name, option
):
    checkpoint = tmp_path / "new.checkpoint"
    checkpoint.mkdir()
    (checkpoint / "state.safetensors").write_bytes(b"half a training")
    with other_writer(tmp_path / name) as process:
        line = command("fit", log_file, "--out", tmp_path / "new", *option).refusal
        assert f"{name} is being written by process {process.pid} on" in line
        assert (checkpoint / "state.safetensors").exists()
    assert not no_training


@pytest.mark.parametrize("no_directory_renames", ["ENOTSUP"], indirect=True)
def test_a_place_that_cannot_rename_directories_is_noted_on_standard_error_and_has_the_run(
    command, no_training, log_file, tmp_path, no_directory_renames
):
    outcome = command("fit", log_file, "--out", tmp_path / "new")
    assert outcome.code == 0
    notes = [line for line in outcome.err.splitlines() if line.startswith("note: the file system")]
    assert any(f"cannot rename directories ({no_directory_renames})" in note for note in notes)
    assert len(notes) == 2
    assert Recommender.load(tmp_path / "new").run.report


def test_a_directory_that_holds_more_than_a_checkpoint_is_never_emptied(
    command, no_training, log_file, tmp_path
):
    checkpoint = tmp_path / "new.checkpoint"
    checkpoint.mkdir()
    (checkpoint / "thesis.tex").write_text("years of work")
    assert command("fit", log_file, "--out", tmp_path / "new", "--force").code == 0
    assert (checkpoint / "thesis.tex").read_text() == "years of work"


@pytest.mark.slow
def test_an_interrupted_training_exits_with_130_and_goes_on_with_resume(
    command, log_file, tmp_path, tiny
):
    target = tmp_path / "new"
    arguments = ["fit", log_file, "--out", target, *tiny, "--set", "epochs=100"]
    with subprocess.Popen(
        [sys.executable, "-m", "segue", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as training:
        assert training.stderr is not None
        for line in training.stderr:
            if line.startswith("epoch 1/"):
                break
        training.send_signal(signal.SIGINT)
        out, err = training.communicate()
    assert training.returncode == 130
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith(("segue: stopped in epoch", "segue: stopped after epoch"))
    assert "--resume" in last
    assert not target.exists()
    outcome = command(*arguments, "--resume")
    assert outcome.code == 0, outcome.err
    assert "epoch 1/100" not in outcome.err
    assert len(Recommender.load(target).run.training["epochs"]) == 100
    assert os.listdir(tmp_path) == ["new"]


def test_repeats_and_whole_baskets_reach_the_split(command, no_training, log_file, tmp_path):
    plain = command("fit", log_file, "--out", tmp_path / "plain")
    assert plain.code == 0, plain.err
    baskets = ["--split", "last-basket", "--repeats"]
    for flags in (baskets, ["--split", "global-time", "--repeats"], ["--repeats"]):
        name = f"run-{len(no_training)}"
        outcome = command("fit", log_file, *flags, "--out", tmp_path / name)
        assert outcome.code == 0, outcome.err
    splits = [call["split"] for call in no_training]
    assert [split.kind for split in splits] == [
        "leave-one-out",
        "last-basket",
        "global-time",
        "leave-one-out",
    ]
    assert [split.repeats for split in splits] == [False, True, True, True]
