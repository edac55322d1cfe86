from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl

from segue.cli.inputs import chosen_validation
from segue.data.histories import Histories
from segue.data.splits import HeldOut
from segue.data.vocabulary import Vocabulary


def test_users_are_counted_once_however_many_targets_they_have(capsys):
    items = [np.array([1], np.int32)] * 3
    histories = Histories.from_lists(Vocabulary(pl.Series([7, 8])), items)
    histories = replace(histories, user_ids=pl.Series(["a", "a", "b"]))
    drawn = HeldOut("validation", histories, np.array([1, 2, 1], np.int32))
    everybody = SimpleNamespace(sample=lambda n, seed: drawn)
    split = SimpleNamespace(validation=everybody, kind="any")
    assert chosen_validation(split, "2", 0) is drawn
    assert "validating on 2 of the 2 users" in capsys.readouterr().err
