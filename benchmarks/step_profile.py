"""Where the time of a training step goes, and what its arithmetic and its memory traffic ask for.

MovieLens-1M without each user's last two items, 2 blocks, 1 head, dropout 0.2, packed batches of
128 users, JAX on this machine's cores. The parts come from a trace of the compiled step: each
operation counts for the part of the model that its name says, its time divided by the cores. "idle"
is what the step takes beyond that. The floors, at the rates of a large product and a large copy:

arithmetic  the products of the mathematics (`train_speed.py`), and the operations that XLA counts.
memory      the bytes that the step's operations read and write by XLA's count, as if no cache held
            any of them.

XLA counts what is in a loop once, and so less than there is; of several devices it counts one.

    python benchmarks/step_profile.py [--objective bce|softmax] [--width D] [--devices N] [--steps N]
"""  # noqa: E501 - the usage

import argparse
import json
import sys

from surroundings import ML_1M, surroundings
from tracing import copy_rate, print_shares, product_rate, step_and_batch, timed, traced
from train_speed import flops_per_target

import segue

LOSS_OF = {"bce": [], "softmax": ["loss=softmax"]}


def main() -> int:
    """Prints the table and the row."""
    options = parsed()
    log = segue.read_log(ML_1M / "interactions.parquet", time_col="position")
    train = segue.leave_one_out(log).train
    settings = [f"width={options.width}", "dropout=0.2", f"devices={options.devices}"]
    config = segue.load_preset("tutorial").with_settings(settings + LOSS_OF[options.objective])
    step, batch = step_and_batch(train, config)
    counted = step.compiled(batch).cost_analysis()
    seconds = timed(step, batch, options.steps)
    parts = traced(step, batch, options.steps)
    product, copied = product_rate(), copy_rate()
    targets = int(batch.weights.sum())
    flops = flops_per_target(train, options.objective, options.width) * targets
    floors = {
        "arithmetic, as XLA counts": counted["flops"] / product,
        "arithmetic, as the mathematics has it": flops / product,
        "memory, as XLA counts": counted["bytes accessed"] / copied,
    }
    parts["idle"] = max(0.0, seconds - sum(parts.values()))
    print(f"one step of {targets:,} targets, {options.objective}, width {options.width}")
    print_shares("part", parts, seconds)
    print_shares("floor", floors, seconds)
    print(f"{'the step':<46}{1e3 * seconds:>8.1f}\n")
    document = {
        "benchmark": "step_profile",
        "objective": options.objective,
        "width": options.width,
        "devices": options.devices,
        "step_ms": 1e3 * seconds,
        "parts_ms": {name: 1e3 * value for name, value in parts.items()},
        "floors_ms": {name: 1e3 * value for name, value in floors.items()},
        "gflops": flops / seconds / 1e9,
        "product_gflops": product / 1e9,
        "copy_gb_per_s": copied / 1e9,
        **surroundings(["keras", "jax"], config.training.seed),
    }
    print(json.dumps(document))
    return 0


def parsed() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objective", choices=LOSS_OF, default="bce")
    parser.add_argument("--width", type=int, default=50, metavar="D")
    parser.add_argument("--devices", default="none", metavar="N", help="none: as many as pay off")
    parser.add_argument("--steps", type=int, default=10, metavar="N")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
