def test_json_is_the_explanation(command, run):
    found = command("explain", run, "--history", "3, 7,99", "--item", "9", "--json").json
    assert (found["item_id"], found["title"]) == (9, "Café 9")
    assert [each["item_id"] for each in found["influences"]] == [3, 7]
    assert found["unknown_items"] == ["99"]
    for each in found["influences"]:
        assert abs(each["score_without"] - found["score"] - each["change"]) < 1e-9


def test_text_has_a_row_for_each_past_item_and_says_that_it_is_no_sum(command, run):
    outcome = command("explain", run, "--history", "3,7,99", "--item", "9")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].startswith("Café 9: score ")
    assert [line.split()[:2] for line in lines if "Café" in line][1:] == [["1", "3"], ["2", "7"]]
    assert "do not add up" in outcome.out
    assert "skipped 1 of 3 items" in outcome.err


def test_an_unknown_item_is_refused(command, run):
    assert "99" in command("explain", run, "--history", "3", "--item", "99").refusal
