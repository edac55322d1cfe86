"""The estimate of a training's memory, against hand-counted arrays, and the refusal."""

import numpy as np
import polars as pl
import pytest

from segue.config import load_preset
from segue.data.histories import Histories
from segue.data.vocabulary import Vocabulary
from segue.errors import TrainingError
from segue.training import memory
from segue.training.placement import Placement
from segue.training.plan import Plan

SAMPLED = ["width=64", "loss=sampled_softmax", "negatives=256", "negatives_per=batch"]


DENSE, SPARSE = Placement(False, 1, 72), Placement(True, 1, 72)


def plan_of(settings, rows=72):
    """The plan of a training with so many rows a batch."""
    config = load_preset("sasrec").with_settings([*settings, f"batch_size={rows}"])
    histories = [np.arange(1, 202, dtype=np.int32)] * rows  # each fills a row
    vocabulary = Vocabulary.from_ids(pl.int_range(1, 202, dtype=pl.Int64, eager=True))
    plan = Plan.of(Histories.from_lists(vocabulary, histories), config)
    assert plan.rows_per_batch == rows
    return plan


def estimate(num_items, settings, touches_rows):
    placement = SPARSE if touches_rows else DENSE
    return memory.estimated_bytes(num_items, plan_of(settings), placement)


@pytest.mark.parametrize(
    ("touches_rows", "settings", "copies"),
    [(True, [], 5), (False, [], 6), (False, ["averaging=0.9"], 8)],
)
def test_every_copy_of_the_item_table_counts(touches_rows, settings, copies):
    # The table, two moments, the best weights; the next best, or a gradient and a moment in the
    # making; the average and what it stands in for. 1,000,000 items more at width 64 are 256 MB
    # more for each.
    more, fewer = (
        estimate(count, [*SAMPLED, *settings], touches_rows) for count in (2_000_000, 1_000_000)
    )
    assert more - fewer == copies * 256_000_000


def test_each_further_device_holds_the_table_its_moments_and_its_gradient():
    plan = plan_of(["width=64"])
    one, two = (
        memory.estimated_bytes(1_000_000, plan, Placement(False, count, 36)) for count in (1, 2)
    )
    assert two - one == 4 * 256_000_256


def test_negatives_of_their_own_count_for_every_target():
    own = ["width=64", "loss=sampled_softmax", "negatives=256"]
    # 72 x 200 targets with 256 logits each and, for a block of them, 4 million entries of vectors,
    # three times; against one logit and one vector of 64.
    assert estimate(10_000, own, True) - estimate(
        10_000, ["width=64", "loss=bce", "negatives=1"], True
    ) == 3 * 4 * (72 * 200 * 256 + 4_000_000 - 72 * 200 * (1 + 64))


def test_what_cannot_fit_is_refused_with_both_figures_and_a_way_out(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 3_000_000_000)
    plan = plan_of(["width=64"])
    with pytest.raises(
        TrainingError,
        match=r"10,000,000 items at width 64 needs about 2\d\.\d GB.*"
        r"3\.0 GB are free.*sampled_softmax",
    ):
        memory.refuse_too_large(10_000_000, plan, DENSE)
    memory.refuse_too_large(10_000, plan, DENSE)


def test_a_refusal_names_the_settings_that_cost_and_no_other(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 3_000_000_000)

    def refusal(*settings):
        plan = plan_of(["width=64", *settings])
        with pytest.raises(TrainingError) as refused:
            memory.refuse_too_large(10_000_000, plan, DENSE)
        return str(refused.value)

    assert refusal(*SAMPLED).endswith("; set a smaller width or batch_size")
    assert refusal(*SAMPLED, "averaging=0.9", "l2=0.1").endswith(", or averaging=0, or l2=0")


def test_nothing_is_refused_where_the_machine_does_not_tell(monkeypatch):
    refused = []
    for free in (1, None):
        monkeypatch.setattr(memory, "available_bytes", lambda free=free: free)
        try:
            memory.refuse_too_large(10**9, plan_of([]), DENSE)
        except TrainingError:
            refused.append(free)
    assert refused == [1]


def test_the_containers_limit_holds_where_it_is_the_lower(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:   8000 kB\n")
    assert memory.available_bytes(tmp_path, tmp_path / "none") == 8000 * 1024
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("1500000\n")
    # Files that were read and may be forgotten are no use of memory.
    (tmp_path / "memory.stat").write_text("anon 900000\ninactive_file 500000\nslab 7\n")
    assert memory.available_bytes(tmp_path, tmp_path) == 4_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes(tmp_path, tmp_path) == 8000 * 1024
