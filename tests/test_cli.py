import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import segue.fitting
from segue.cli import main
from segue.data import datasets
from segue.data.items import read_items
from segue.data.log import read_log
from segue.data.splits import global_time, no_split
from segue.data.vocabulary import Vocabulary
from segue.errors import DatasetError, Interrupted
from segue.recommender import Recommender
from segue.training.trainer import Session

TINY_SETTINGS = [
    *("--set", "width=16", "--set", "epochs=2"),
    *("--set", "max_length=20", "--set", "batch_size=32"),
]
# A preset that nobody should have to wait for.
TINY_PRESET = "[model]\nwidth = 16\nmax_length = 20\n[training]\nepochs = 1\n"


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)

    @property
    def refusal(self) -> str:
        """The one line of a refused command, which says nothing else and shows no traceback."""
        assert (self.code, self.out) == (1, "")
        (line,) = self.err.splitlines()
        assert line.startswith("segue: ")
        return line.removeprefix("segue: ")


Command = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process."""

    def invoke(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, out, err)

    return invoke


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch, recommender: Recommender) -> list[dict[str, Any]]:
    """Training gives the small run at once; what it was asked to do is listed."""
    asked: list[dict[str, Any]] = []

    def fit(split: Any, **options: Any) -> Recommender:
        asked.append({"split": split, **options})
        return Recommender(replace(recommender.run, ranking=None, report={}))

    monkeypatch.setattr(segue.fitting, "fit", fit)
    return asked


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    """A copy of the small run, to be spoilt."""
    return Path(shutil.copytree(run, tmp_path / "own"))


def digests(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()
    }


def items_of(log_file: Path, user_id: int) -> list[int]:
    """A user's items, oldest first, straight from the log."""
    log = pl.read_parquet(log_file).filter(pl.col("user_id") == user_id).sort("timestamp")
    return log["item_id"].to_list()


def save_log(path: Path, users: list[Any], items: list[Any], times: list[Any]) -> Path:
    pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times}).write_parquet(path)
    return path


class TestFit:
    def test_fit_writes_a_run_and_prints_its_figures_beside_the_baselines(
        self, command: Command, log_file: Path, items_file: Path, tmp_path: Path
    ) -> None:
        target = tmp_path / "runs" / "new"
        log = ["fit", log_file, "--items", items_file, "--validation-users", "40"]
        outcome = command(*log, "--out", target, *TINY_SETTINGS)
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
        self,
        command: Command,
        no_training: list[dict[str, Any]],
        log_file: Path,
        items_file: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def load(name: str, *, progress: bool) -> Any:
            assert (name, progress) == ("ml-100k", True)
            return read_log(log_file), read_items(items_file)

        monkeypatch.setattr(datasets, "load", load)
        assert command("fit", "ml-100k", "--out", tmp_path / "new").code == 0
        assert no_training[0]["items"].frame["title"][0] == "Café 1"

    def test_a_path_that_exists_wins_over_a_datasets_name(
        self,
        command: Command,
        no_training: list[dict[str, Any]],
        log_file: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "ml-100k").mkdir()
        shutil.copy(log_file, tmp_path / "ml-100k" / "log.parquet")
        assert command("fit", "ml-100k", "--out", "new").code == 0
        assert no_training[0]["split"].histories.num_users == 120

    def test_columns_weights_and_filters_are_chosen_by_options(
        self, command: Command, no_training: list[dict[str, Any]], tmp_path: Path
    ) -> None:
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

    def test_core_leaves_users_and_items_that_have_so_many(
        self, command: Command, no_training: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        users = [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
        items = [1, 2, 3, 1, 2, 3, 1, 2, 3, 9]
        log = save_log(tmp_path / "log.parquet", users, items, list(range(10)))
        assert command("fit", log, "--out", tmp_path / "new", "--core", "3").code == 0
        assert no_training[0]["split"].histories.vocabulary.ids.to_list() == [1, 2, 3]

    def test_the_session_is_as_the_options_say(
        self, command: Command, no_training: list[dict[str, Any]], log_file: Path, tmp_path: Path
    ) -> None:
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

    def test_the_split_none_trains_on_everything_and_reports_nothing(
        self, command: Command, no_training: list[dict[str, Any]], log_file: Path, tmp_path: Path
    ) -> None:
        outcome = command("fit", log_file, "--out", tmp_path / "new", "--split", "none")
        assert outcome.code == 0, outcome.err
        assert no_training[0]["split"].kind == "none"
        assert no_training[0]["validation"] is None
        assert "model" not in outcome.out
        assert "segue evaluate" not in outcome.out

    def test_the_split_global_time_cuts_at_moments(
        self, command: Command, no_training: list[dict[str, Any]], log_file: Path, tmp_path: Path
    ) -> None:
        outcome = command("fit", log_file, "--out", tmp_path / "new", "--split", "global-time")
        assert outcome.code == 0, outcome.err
        expected = global_time(read_log(log_file)).parts
        assert (no_training[0]["split"].parts == expected).all()

    def test_validation_users_may_be_listed_in_a_file(
        self, command: Command, no_training: list[dict[str, Any]], log_file: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "users.csv").write_text("userId\n3\n5\n999\n")
        chosen = ["--validation-users", tmp_path / "users.csv"]
        assert command("fit", log_file, "--out", tmp_path / "new", *chosen).code == 0
        assert no_training[0]["validation"].histories.user_ids.to_list() == [3, 5]

    def test_a_forgotten_checkpoint_is_refused_and_given_up_with_force(
        self, command: Command, no_training: list[dict[str, Any]], log_file: Path, tmp_path: Path
    ) -> None:
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

    def test_a_directory_that_holds_more_than_a_checkpoint_is_never_emptied(
        self, command: Command, no_training: list[dict[str, Any]], log_file: Path, tmp_path: Path
    ) -> None:
        checkpoint = tmp_path / "new.checkpoint"
        checkpoint.mkdir()
        (checkpoint / "thesis.tex").write_text("years of work")
        assert command("fit", log_file, "--out", tmp_path / "new", "--force").code == 0
        assert (checkpoint / "thesis.tex").read_text() == "years of work"

    def test_an_interrupted_training_exits_with_130_and_goes_on_with_resume(
        self, command: Command, log_file: Path, tmp_path: Path
    ) -> None:
        target = tmp_path / "new"
        arguments = ["fit", log_file, "--out", target, *TINY_SETTINGS, "--set", "epochs=100"]
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
        assert last.startswith("segue: stopped in epoch")
        assert "--resume" in last
        assert not target.exists()
        outcome = command(*arguments, "--resume")
        assert outcome.code == 0, outcome.err
        assert "epoch 1/100" not in outcome.err
        assert len(Recommender.load(target).run.training["epochs"]) == 100
        assert os.listdir(tmp_path) == ["new"]


class TestEvaluate:
    def test_json_is_the_report_of_the_run_and_the_run_stays_as_it_is(
        self, command: Command, run: Path, recommender: Recommender
    ) -> None:
        before = digests(run)
        outcome = command("evaluate", run, "--json")
        assert outcome.code == 0, outcome.err
        assert outcome.json == recommender.run.report
        assert digests(run) == before

    def test_json_has_the_promised_keys(self, command: Command, run: Path) -> None:
        report = command("evaluate", run, "--json").json
        assert (report["protocol"], report["split"]) == ("full", "leave-one-out")
        assert (report["users"], report["candidates"]) == (120, 30)
        names = {f"{name}@{k}" for name in ("hr", "ndcg") for k in (1, 5, 10, 20)} | {"mrr"}
        assert set(report["metrics"]) == set(report["intervals"]) == names
        low, high = report["intervals"]["ndcg@10"]
        assert low <= report["metrics"]["ndcg@10"] <= high
        assert {"popularity", "item_knn"} <= set(report["baselines"])
        assert all(set(metrics) == names for metrics in report["baselines"].values())

    def test_the_sampled_protocol_is_one_option_away(self, command: Command, run: Path) -> None:
        report = command("evaluate", run, "--json", "--protocol", "sampled").json
        assert (report["protocol"], report["candidates"]) == ("sampled", 101)

    def test_without_json_there_is_a_row_for_each_metric(
        self, command: Command, run: Path, recommender: Recommender
    ) -> None:
        outcome = command("evaluate", run)
        (row,) = (line.split() for line in outcome.out.splitlines() if line.startswith("HR@10"))
        report = recommender.run.report
        low, high = report["intervals"]["hr@10"]
        values = [report["metrics"]["hr@10"], low, high]
        values += [each["hr@10"] for each in report["baselines"].values()]
        row.remove("to")
        assert row[1:] == [f"{value:.4f}" for value in values]

    def test_a_run_without_a_test_part_is_refused(
        self, command: Command, recommender: Recommender, tmp_path: Path
    ) -> None:
        assert recommender.run.split is not None
        everything = no_split(recommender.run.split.histories)
        bare = replace(recommender.run, split=everything, ranking=None, report={})
        Recommender(bare).save(tmp_path / "bare")
        assert "no test part" in command("evaluate", tmp_path / "bare").refusal


class TestRecommend:
    def test_json_holds_what_the_recommender_answers(
        self, command: Command, run: Path, recommender: Recommender
    ) -> None:
        outcome = command("recommend", run, "--history", "3,17,5", "-k", "4", "--json")
        assert outcome.code == 0
        assert outcome.err == ""
        answer = outcome.json
        assert (answer["strategy"], answer["unknown_items"]) == ("model", [])
        expected = recommender.recommend([[3, 17, 5]], k=4)
        assert [item["item_id"] for item in answer["items"]] == expected["item_id"].to_list()
        assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4]
        assert [item["title"] for item in answer["items"]] == [
            f"Café {item['item_id']}" for item in answer["items"]
        ]
        assert [item["score"] for item in answer["items"]] == pytest.approx(
            expected["score"].to_list(), abs=1e-5
        )

    def test_the_table_has_ten_rows_of_rank_id_title_and_score(
        self, command: Command, run: Path
    ) -> None:
        lines = command("recommend", run, "--history", "3,17,5").out.splitlines()
        assert lines[0].split() == ["rank", "item_id", "title", "score"]
        assert len(lines) == 11
        rank, item_id, *title, score = lines[1].split()
        assert rank == "1"
        assert title == ["Café", item_id]
        assert float(score)

    def test_a_user_is_answered_from_the_whole_history_in_the_run(
        self, command: Command, run: Path, log_file: Path
    ) -> None:
        history = ",".join(map(str, items_of(log_file, 7)))
        by_user = command("recommend", run, "--user", "7", "--json").json
        by_history = command("recommend", run, "--history", history, "--json").json
        assert by_user == by_history

    def test_unknown_items_are_skipped_and_told_in_the_logs_own_type(
        self, command: Command, run: Path
    ) -> None:
        outcome = command("recommend", run, "--history", "3,999,x7,17,007", "--json")
        assert outcome.json["unknown_items"] == [999, "x7", "007"]
        assert outcome.json["strategy"] == "model"
        assert "skipped 3 of 5 items" in outcome.err
        assert "'999', 'x7', '007'" in outcome.err
        known = command("recommend", run, "--history", "3,17", "--json").json
        assert outcome.json["items"] == known["items"]

    def test_ids_of_text_stay_text(
        self, command: Command, recommender: Recommender, tmp_path: Path
    ) -> None:
        text = Vocabulary(recommender.vocabulary.ids.cast(pl.String))
        bare = replace(recommender.run, vocabulary=text, split=None, ranking=None, report={})
        Recommender(bare).save(tmp_path / "text")
        answer = command("recommend", tmp_path / "text", "--history", "3,999", "--json").json
        assert answer["unknown_items"] == ["999"]
        assert all(isinstance(item["item_id"], str) for item in answer["items"])

    @pytest.mark.parametrize("history", ["", "999", " , "])
    def test_a_history_without_a_known_item_gets_the_most_popular(
        self, history: str, command: Command, run: Path, recommender: Recommender
    ) -> None:
        outcome = command("recommend", run, "--history", history, "-k", "3", "--json")
        assert outcome.json["strategy"] == "popular"
        counts = recommender.run.item_counts
        expected = sorted(range(1, 31), key=lambda item: (-counts[item], item))[:3]
        assert [item["item_id"] for item in outcome.json["items"]] == expected
        assert "the most popular" in outcome.err

    def test_fewer_candidates_than_asked_for_are_remarked_on(
        self, command: Command, run: Path
    ) -> None:
        outcome = command("recommend", run, "--history", "1,2,3", "-k", "28", "--json")
        assert len(outcome.json["items"]) == 27
        assert "only 27 of the 28" in outcome.err

    def test_exactly_one_question_is_asked(self, command: Command, run: Path) -> None:
        assert "exactly one" in command("recommend", run).refusal
        both = command("recommend", run, "--history", "1", "--user", "1")
        assert "--history and --user" in both.refusal
        assert "--output" in command("recommend", run, "--input", "log.parquet").refusal

    def test_an_unknown_user_is_refused(self, command: Command, run: Path) -> None:
        assert "'nobody'" in command("recommend", run, "--user", "nobody").refusal

    def test_a_file_of_users_is_answered_in_a_file(
        self, command: Command, run: Path, tmp_path: Path
    ) -> None:
        log = tmp_path / "some.parquet"
        pl.DataFrame(
            {"who": ["b", "a", "b"], "item_id": [3, 999, 17], "position": [2, 1, 1]}
        ).write_parquet(log)
        files = ["--input", log, "--output", tmp_path / "answers.parquet"]
        columns = ["--user-col", "who", "--time-col", "position"]
        outcome = command("recommend", run, *files, *columns, "-k", "2", "--json")
        assert outcome.err == "4 recommendations written\n"
        assert outcome.json == {"users": 2, "rows": 4, "unknown_items": 1, "popular_users": 1}
        answers = pl.read_parquet(tmp_path / "answers.parquet")
        assert answers["user_id"].to_list() == ["a", "a", "b", "b"]
        alone = command("recommend", run, "--history", "17,3", "-k", "2", "--json").json
        assert answers["item_id"].to_list()[2:] == [item["item_id"] for item in alone["items"]]
        again = command("recommend", run, *files, *columns)
        assert "--force" in again.refusal
        outcome = command("recommend", run, *files, *columns, "-k", "1", "--force")
        assert outcome.out.startswith("2 recommendations for 2 users")
        assert "unknown" in outcome.err


class TestSimilar:
    def test_the_nearest_items_come_first_and_the_item_itself_never(
        self, command: Command, run: Path, recommender: Recommender
    ) -> None:
        outcome = command("similar", run, "5", "-k", "3", "--json")
        assert outcome.json["item_id"] == 5
        table = recommender._scorer.item_table[1:]
        table = table / (table**2).sum(axis=1, keepdims=True) ** 0.5
        cosines = table @ table[4]
        nearest = [int(item) for item in (-cosines).argsort() + 1 if item != 5][:3]
        assert [item["item_id"] for item in outcome.json["items"]] == nearest
        assert [item["score"] for item in outcome.json["items"]] == pytest.approx(
            [cosines[item - 1] for item in nearest], abs=1e-5
        )

    def test_the_table_shows_titles(self, command: Command, run: Path) -> None:
        lines = command("similar", run, "5", "-k", "2").out.splitlines()
        assert len(lines) == 3
        assert "Café" in lines[1]

    def test_an_unknown_item_is_refused(self, command: Command, run: Path) -> None:
        assert "999" in command("similar", run, "999").refusal


class TestData:
    def test_list_names_every_dataset(self, command: Command) -> None:
        names = [line.split()[0] for line in command("data", "list").out.splitlines()[1:]]
        assert names == list(datasets.DATASETS)

    def test_fetch_prints_where_the_dataset_is(
        self, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "ml-latest-small"
        folder.mkdir()
        for name in ("ratings.csv", "movies.csv"):
            (folder / name).write_text("a,b\n")
        monkeypatch.setenv("SEGUE_DATA", str(tmp_path))
        assert command("data", "fetch", "ml-latest-small").out == f"{folder}\n"

    def test_fetch_refuses_a_name_that_it_does_not_know(self, command: Command) -> None:
        assert "ml-100k" in command("data", "fetch", "ml-99").refusal

    def test_inspect_prints_the_logs_summary(self, command: Command, log_file: Path) -> None:
        outcome = command("data", "inspect", log_file, "--time-col", "timestamp")
        assert outcome.out == read_log(log_file).summary() + "\n"


class TestDemo:
    @pytest.fixture
    def only_ml_100k(
        self, log_file: Path, items_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The large dataset cannot be had, the small one is the small log; the place is empty."""

        def load(name: str, *, progress: bool) -> Any:
            if name != "ml-100k":
                raise DatasetError("ml-1m: no connection")
            return read_log(log_file), read_items(items_file)

        monkeypatch.setattr(datasets, "load", load)
        monkeypatch.chdir(tmp_path)

    @pytest.mark.usefixtures("only_ml_100k")
    def test_demo_trains_tests_shows_and_saves(
        self, command: Command, log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "tiny.toml").write_text(TINY_PRESET)
        monkeypatch.setattr("segue.cli.demo.PRESET", "tiny.toml")
        outcome = command("demo")
        assert outcome.code == 0, outcome.err
        assert "training on ml-100k, because ml-1m: no connection" in outcome.err
        lines = outcome.out.splitlines()
        for name in ("model", "popularity", "item_knn"):
            assert any(line.startswith(name) for line in lines)
        history = items_of(log_file, 1)
        start = lines.index("The last films of user 1, the newest at the end:") + 1
        assert [line.strip() for line in lines[start : start + 10]] == [
            f"Café {item}" for item in history[-10:]
        ]
        start = lines.index("Recommended next:") + 1
        numbered = [line.split(maxsplit=1) for line in lines[start : start + 10]]
        assert [int(number) for number, _ in numbered] == list(range(1, 11))
        made = Recommender.load("runs/demo")
        expected = made.answer(history, 10).items["title"].to_list()
        assert [title for _, title in numbered] == expected
        assert "  segue recommend runs/demo --user 1" in lines

    @pytest.mark.usefixtures("only_ml_100k", "no_training")
    def test_an_earlier_demo_is_replaced_but_no_other_run(
        self, command: Command, own_run: Path
    ) -> None:
        assert command("demo").code == 0
        assert command("demo").code == 0
        before = digests(own_run)
        assert "--force" in command("demo", "--out", own_run).refusal
        assert digests(own_run) == before


class TestRefusals:
    """Bad input: one line on standard error, exit 1, nothing written."""

    @pytest.fixture
    def nothing_trains(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fit(*arguments: Any, **options: Any) -> Any:
            raise AssertionError("training started")

        monkeypatch.setattr(segue.fitting, "fit", fit)

    @pytest.mark.usefixtures("nothing_trains")
    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["--preset", "best"], "'best'"),
            (["--preset", "missing.toml"], "missing.toml"),
            (["--set", "speed=9"], "'speed'"),
            (["--set", "epochs=0"], "epochs"),
            (["--set", "epochs"], "key=value"),
            (["--items", "missing.csv"], "missing.csv"),
            (["--time-col", "when"], "'user_id', 'item_id', 'timestamp'"),
            (["--min-weight", "3"], "weight"),
            (["--min-weight", "much"], "'much'"),
            (["--core", "0"], "0"),
            (["--core", "1000"], "1000"),
            (["--min-history", "1000"], "12"),
            (["--min-history", "1.5"], "'1.5'"),
            (["--split", "random"], "'random'"),
            (["--split", "none", "--validation-users", "5"], "none"),
            (["--validation-users", "0"], "0"),
            (["--validation-users", "missing.csv"], "missing.csv"),
        ],
    )
    def test_fit_refuses_a_bad_value_before_training(
        self,
        arguments: list[str],
        told: str,
        command: Command,
        log_file: Path,
        tmp_path: Path,
    ) -> None:
        outcome = command("fit", log_file, "--out", tmp_path / "new", *arguments)
        assert told in outcome.refusal
        assert not list(tmp_path.iterdir())

    def test_resuming_without_a_checkpoint_is_refused(
        self, command: Command, log_file: Path, tmp_path: Path
    ) -> None:
        outcome = command("fit", log_file, "--out", tmp_path / "new", "--resume", *TINY_SETTINGS)
        assert outcome.code == 1
        assert "no checkpoint" in outcome.err.splitlines()[-1]
        assert not list(tmp_path.iterdir())

    @pytest.mark.usefixtures("nothing_trains")
    def test_fit_refuses_a_log_that_does_not_exist(self, command: Command, tmp_path: Path) -> None:
        line = command("fit", tmp_path / "log.csv", "--out", tmp_path / "new").refusal
        assert "no such file" in line
        assert "ml-100k" in line

    @pytest.mark.usefixtures("nothing_trains")
    def test_fit_refuses_an_empty_log(self, command: Command, tmp_path: Path) -> None:
        log = tmp_path / "log.csv"
        log.write_text("user_id,item_id,timestamp\n")
        assert "no interactions" in command("fit", log, "--out", tmp_path / "new").refusal

    @pytest.mark.usefixtures("nothing_trains")
    def test_fit_lists_the_columns_where_one_is_misnamed(
        self, command: Command, tmp_path: Path
    ) -> None:
        log = tmp_path / "log.csv"
        log.write_text("person,item_id,timestamp\n1,2,3\n")
        line = command("fit", log, "--out", tmp_path / "new").refusal
        assert "'person', 'item_id', 'timestamp'" in line
        assert "--user-col" in line

    @pytest.mark.usefixtures("nothing_trains")
    def test_fit_refuses_users_who_are_all_too_short(
        self, command: Command, tmp_path: Path
    ) -> None:
        log = save_log(tmp_path / "log.parquet", [1, 1, 2, 2], [1, 2, 1, 2], [1, 2, 1, 2])
        assert "3 interactions" in command("fit", log, "--out", tmp_path / "new").refusal

    @pytest.mark.usefixtures("nothing_trains")
    def test_an_output_that_exists_asks_for_force(
        self, command: Command, log_file: Path, own_run: Path
    ) -> None:
        before = digests(own_run)
        assert "--force" in command("fit", log_file, "--out", own_run).refusal
        assert digests(own_run) == before

    @pytest.mark.usefixtures("nothing_trains")
    def test_an_output_under_a_file_is_refused(
        self, command: Command, log_file: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        assert (
            str(tmp_path / "file")
            in command("fit", log_file, "--out", tmp_path / "file" / "new").refusal
        )

    @pytest.mark.usefixtures("no_training")
    def test_a_full_disk_leaves_no_run_behind(
        self,
        command: Command,
        log_file: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        outcome = command("fit", log_file, "--out", tmp_path / "new")
        assert (outcome.code, outcome.out) == (1, "")
        assert "No space left on device" in outcome.err.splitlines()[-1]
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("k", "told"),
        [("0", "k=0"), ("-3", "k=-3"), ("5000", "500"), ("abc", "'abc'"), ("1.5", "'1.5'")],
    )
    @pytest.mark.parametrize("question", [["recommend", "--history", "1"], ["similar", "1"]])
    def test_a_bad_k_is_refused(
        self, question: list[str], k: str, told: str, command: Command, run: Path
    ) -> None:
        name, *rest = question
        assert told in command(name, run, *rest, "-k", k).refusal

    def test_a_bad_k_is_refused_for_a_file_of_users(
        self, command: Command, run: Path, log_file: Path, tmp_path: Path
    ) -> None:
        files = ["--input", log_file, "--output", tmp_path / "answers.parquet"]
        assert "k=0" in command("recommend", run, *files, "-k", "0").refusal
        assert not list(tmp_path.iterdir())

    def test_a_directory_that_is_no_run_is_refused(self, command: Command, tmp_path: Path) -> None:
        assert str(tmp_path) in command("evaluate", tmp_path).refusal
        assert "missing" in command("similar", tmp_path / "missing", "1").refusal

    def test_a_run_with_a_changed_byte_is_refused(self, command: Command, own_run: Path) -> None:
        weights = own_run / "weights.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        assert "weights.safetensors" in command("evaluate", own_run).refusal

    def test_a_run_with_a_missing_file_is_refused(self, command: Command, own_run: Path) -> None:
        (own_run / "items.parquet").unlink()
        assert "items.parquet" in command("recommend", own_run, "--user", "1").refusal

    def test_a_run_of_a_newer_format_is_refused(self, command: Command, own_run: Path) -> None:
        manifest = own_run / "manifest.json"
        document = json.loads(manifest.read_text())
        document["format_version"] += 1
        manifest.write_text(json.dumps(document))
        assert "newer" in command("evaluate", own_run).refusal


class TestExits:
    @pytest.mark.parametrize(
        "arguments",
        [["fly"], ["--fly"], ["fit", "--fly"], ["data", "fly"], ["similar", "a", "b", "c"]],
    )
    def test_an_unknown_command_or_option_exits_with_2(
        self, arguments: list[str], command: Command
    ) -> None:
        outcome = command(*arguments)
        assert (outcome.code, outcome.out) == (2, "")
        (line,) = outcome.err.splitlines()
        assert "--help" in line

    def test_a_missing_argument_is_told_in_one_line(self, command: Command) -> None:
        assert "'--out'" in command("fit", "log.csv").refusal

    def test_the_version_and_the_help_exit_with_0(self, command: Command) -> None:
        assert command("--version") == Outcome(0, f"segue {segue.__version__}\n", "")
        for arguments in ([], ["--help"], ["fit", "--help"]):
            outcome = command(*arguments)
            assert outcome.code == 0
            assert outcome.out.startswith("Usage: segue")

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (Interrupted("stopped; --resume goes on"), "segue: stopped; --resume goes on\n"),
            (KeyboardInterrupt(), ""),
        ],
    )
    def test_ctrl_c_exits_with_130_and_says_how_to_go_on(
        self,
        error: BaseException,
        told: str,
        command: Command,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(datasets, "fetch", raising(error))
        assert command("data", "fetch", "ml-1m") == Outcome(130, "", told)

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (OSError(errno.ENOSPC, "No space left on device", "/x"), "/x: No space left on device"),
            (OSError("odd"), "odd"),
            (
                ValueError("two\nlines"),
                "a defect of segue, please report it: ValueError: two lines",
            ),
        ],
    )
    def test_an_unexpected_error_is_one_line(
        self, error: Exception, told: str, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(datasets, "fetch", raising(error))
        assert command("data", "fetch", "ml-1m").refusal.startswith(told)

    @pytest.mark.parametrize(
        "arguments", [["--debug", "data", "fetch", "x"], ["data", "fetch", "x", "--debug"]]
    )
    def test_debug_shows_the_traceback_wherever_it_stands(
        self, arguments: list[str], command: Command
    ) -> None:
        outcome = command(*arguments)
        assert outcome.code == 1
        assert outcome.err.startswith("Traceback")
        assert "DatasetError: there is no dataset 'x'" in outcome.err

    def test_a_reader_that_goes_away_ends_the_command_quietly(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        ended = segue_process("data", "list", stdout=writer)
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (1, "")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_full_disk_behind_standard_output_is_told_in_one_line(self) -> None:
        with open("/dev/full", "w") as full:
            ended = segue_process("data", "list", stdout=full)
        assert ended.returncode == 1
        assert ended.stderr == "segue: No space left on device\n"

    def test_letters_that_the_terminal_lacks_are_replaced(
        self, log_file: Path, tmp_path: Path
    ) -> None:
        log = Path(shutil.copy(log_file, tmp_path / "Café.parquet"))
        ended = segue_process(
            "data", "inspect", str(log), stdout=subprocess.PIPE, PYTHONIOENCODING="ascii"
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "Caf?.parquet" in ended.stdout

    def test_titles_that_would_steer_the_terminal_are_shown_as_blanks(
        self, command: Command, recommender: Recommender, tmp_path: Path
    ) -> None:
        titles = pl.DataFrame({"title": ["\x1b[2J\nred"] * 30})
        Recommender(replace(recommender.run, catalogue=titles)).save(tmp_path / "steered")
        out = command("recommend", tmp_path / "steered", "--history", "1", "-k", "2").out
        assert len(out.splitlines()) == 3
        assert "\x1b" not in out
        assert "[2J red" in out


def raising(error: BaseException) -> Callable[..., None]:
    def raise_it(*arguments: Any, **options: Any) -> None:
        raise error

    return raise_it


def segue_process(
    *arguments: str, stdout: Any, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, whose output is buffered as it is by default."""
    command = [sys.executable, "-m", "segue", *arguments]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    env.update(variables)
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=env, text=True)
