def test_the_page_is_one_file(command, run, tmp_path, digests):
    before = digests(run)
    out = tmp_path / "report.html"
    outcome = command("report", run, "--out", out)
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"The report is in {out}.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert digests(run) == before


def test_json_is_the_document_and_no_page_is_written(command, run, recommender, tmp_path):
    out = tmp_path / "report.html"
    found = command("report", run, "--json", "--out", out).json
    assert found["headline"]["systems"][run.name]["metrics"] == recommender.run.report["metrics"]
    assert not out.exists()


def test_what_stands_there_is_kept_without_force(command, run, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("mine")
    assert f"{out} exists" in command("report", run, "--out", out).refusal
    assert out.read_text() == "mine"
    assert command("report", run, "--out", out, "--force").code == 0
    assert out.read_text(encoding="utf-8") != "mine"


def test_places_where_no_page_can_be_are_refused_before_the_work(command, tmp_path):
    assert "is a directory" in command("report", tmp_path / "none", "--out", tmp_path).refusal
    nowhere = tmp_path / "no" / "report.html"
    assert "no directory" in command("report", tmp_path / "none", "--out", nowhere).refusal
