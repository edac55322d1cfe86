import re
from pathlib import Path

from segue.recommender import Recommender


def test_a_run_forgets_a_user_in_its_place(command, own_run):
    before = Recommender.load(own_run).recommend([[1, 2]], 5)
    user = users_in(page(command, own_run, "before"))[0]
    assert command("recommend", own_run, "--user", user).code == 0
    outcome = command("run", "forget", own_run, user)
    assert outcome.code == 0
    assert outcome.out == f"The user is forgotten. The run is in {own_run}.\n"
    assert "train again without them" in outcome.err
    refusal = f"user {user!r} is not among"
    assert refusal in command("recommend", own_run, "--user", user).refusal
    assert user not in users_in(page(command, own_run, "after"))
    assert "119 users" in command("evaluate", own_run).out
    after = Recommender.load(own_run)
    assert int(user) not in after.run.split.histories.user_ids
    assert int(user) not in after.run.ranking.user_ids
    assert after.recommend([[1, 2]], 5).equals(before)
    assert refusal in command("run", "forget", own_run, user).refusal


def users_in(page: str) -> list[str]:
    """The users whose attention and recommendations a report shows."""
    return re.findall(r"Attention of user (\d+)", page)


def page(command, run: Path, name: str) -> str:
    out = run.parent / f"{name}.html"
    assert command("report", run, "--out", out).code == 0
    return out.read_text()


def test_another_place_leaves_the_run_as_it_is_and_says_so(command, own_run, digests, tmp_path):
    before = digests(own_run)
    out = tmp_path / "other"
    outcome = command("run", "forget", own_run, "7", "--out", out)
    assert outcome.code == 0
    assert f"{own_run} still has the user" in outcome.err
    assert digests(own_run) == before
    assert 7 not in Recommender.load(out).run.split.histories.user_ids
    assert "--force" in command("run", "forget", own_run, "8", "--out", out).refusal
    assert command("run", "forget", own_run, "8", "--out", out, "--force").code == 0
    assert 7 in Recommender.load(out).run.split.histories.user_ids


def test_a_negative_id_is_an_id(command, own_run):
    assert "user '-7' is not among" in command("run", "forget", own_run, "-7").refusal


def test_what_is_no_run_is_refused(command, tmp_path):
    assert "choose another place" in command("run", "forget", tmp_path, "7").refusal
    assert "is no run" in command("run", "forget", tmp_path / "none", "7").refusal
