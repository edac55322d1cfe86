"""RecTools' worker: the network of its `fast_transformers`, in a plain loop.

    rectools_flat.py speed HISTORIES bce|softmax WIDTH SECONDS

The sequences are RecTools' own, and so is the network, from the items to the logits; its
feed-forward, four times as wide as the model, gives way to one as wide as the model, like
everybody's. The loop, the optimizer and the loss are what RecTools leaves to whoever trains it.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rectools.fast_transformers import FlatSASRecNet, build_sequences
from torch import nn
from torch.nn import functional
from worker import (
    BATCH_SIZE,
    BLOCKS,
    DROPOUT,
    HEADS,
    LEARNING_RATE,
    LENGTH,
    read_histories,
    report_speed,
)

WARM_UP_STEPS = 3
FEWEST_STEPS = 5


def sequences_of(path: Path) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Inputs and targets, int64[users, LENGTH], padded on the left by 0, and the trained items."""
    item_ids, offsets, _ = read_histories(path)
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    times = np.arange(len(item_ids))
    inputs, targets, items, _ = build_sequences(
        *map(torch.from_numpy, (users, item_ids, times)), max_len=LENGTH
    )
    return inputs, targets, len(items)


def net_of(num_items: int, width: int) -> FlatSASRecNet:
    """The network in the sizes that everybody has here."""
    net = FlatSASRecNet(num_items, width, BLOCKS, HEADS, LENGTH, DROPOUT)
    for block in net.blocks:
        block.ffn = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(width, width),
            nn.Dropout(DROPOUT),
        )
    return net


def shuffled(
    inputs: torch.Tensor, targets: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of BATCH_SIZE users, epoch after epoch, without end."""
    while True:
        for users in torch.randperm(len(inputs)).split(BATCH_SIZE):
            yield inputs[users], targets[users]


def loss_of(
    net: FlatSASRecNet, inputs: torch.Tensor, targets: torch.Tensor, objective: str
) -> torch.Tensor:
    """The mean over the real targets of a batch.

    Args:
        net: the network.
        inputs: int64[rows, LENGTH].
        targets: int64[rows, LENGTH], 0 where there is none.
        objective: "bce", against one uniform negative a target, or "softmax" over all items.
    """
    batch = {"x": inputs, "y": targets}
    if objective == "softmax":
        # Items count from 1, logits from 0; -1 is padding.
        logits, truth = net(batch).flatten(0, 1), targets.flatten() - 1
        return functional.cross_entropy(logits, truth, ignore_index=-1)
    batch["negatives"] = torch.randint(1, net.n_items + 1, (*targets.shape, 1))
    logits = net(batch)[targets != 0]
    truth = torch.tensor([1.0, 0.0]).expand_as(logits)
    return functional.binary_cross_entropy_with_logits(logits, truth)


def speed(path: Path, objective: str, width: int, seconds: float) -> None:
    """Times steps from end to end, so that the cutting of a batch is in them."""
    inputs, targets, num_items = sequences_of(path)
    net = net_of(num_items, width)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    ends: list[float] = []
    counts: list[int] = []
    for batch_inputs, batch_targets in shuffled(inputs, targets):
        loss = loss_of(net, batch_inputs, batch_targets, objective)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(time.perf_counter())
        counts.append(int((batch_targets != 0).sum()))
        timed = ends[WARM_UP_STEPS - 1 :]
        if len(timed) > FEWEST_STEPS and timed[-1] - timed[0] >= seconds:
            break
    if not torch.isfinite(loss):
        raise SystemExit(f"the loss of the last step is {loss.item()}; it must be finite")
    duration = ends[-1] - ends[WARM_UP_STEPS - 1]
    report_speed(duration, sum(counts[WARM_UP_STEPS:]), ["rectools", "torch"])


if __name__ == "__main__":
    _, histories, objective, width, seconds = sys.argv[1:]
    speed(Path(histories), objective, int(width), float(seconds))
