"""How a training shows itself: a bar on a terminal, one line an epoch elsewhere."""

import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from segue.training.batches import PackedBatches

# Reading the loss waits for the device, so the bar does it this seldom.
REFRESH_S = 0.5


class ProgressDisplay(keras.callbacks.Callback):
    """Loss, targets a second and time left, on standard error; a context, which ends the bar."""

    def __init__(self, batches: PackedBatches, epochs: int) -> None:
        super().__init__()
        self.batches = batches
        self.epochs = epochs
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[rate]:,.0f} targets/s"),
            TextColumn("{task.fields[left]} left"),
            console=self.console,
            transient=True,
            auto_refresh=False,
        )
        self.task = self.bar.add_task(
            "training", epoch=0, epochs=epochs, loss=float("nan"), rate=0.0, left="?", total=None
        )
        self.began = 0.0
        self.began_epoch = 0.0
        self.steps = 0
        self.steps_of_epoch = 0
        self.shown = 0.0

    def __enter__(self) -> "ProgressDisplay":
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self.bar.stop()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began_epoch = time.perf_counter()
        self.began = self.began or self.began_epoch
        self.steps_of_epoch = 0
        self.bar.update(self.task, epoch=epoch + 1, total=self.batches.num_batches, completed=0)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps += 1
        self.steps_of_epoch += 1
        now = time.perf_counter()
        if not self.console.is_terminal or now - self.shown < REFRESH_S:
            return
        self.shown = now
        self.bar.update(
            self.task,
            completed=batch + 1,
            loss=float((logs or {})["loss"]),
            rate=self._targets_per_s(now),
            left=_duration(self._seconds_left(now)),
        )
        self.bar.refresh()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        rate = self.batches.windows.num_targets / max(logs["seconds"], 1e-9)
        parts = [f"epoch {epoch + 1}/{self.epochs}", f"loss {logs['loss']:.4f}"]
        parts += [
            f"{name} {value:.4f}" for name, value in logs.items() if name not in ("loss", "seconds")
        ]
        left = _duration(self._seconds_left(time.perf_counter()))
        parts += [f"{rate:,.0f} targets/s", f"{left} left"]
        self.console.print("  ".join(parts), highlight=False, soft_wrap=True)

    def _targets_per_step(self) -> float:
        return self.batches.windows.num_targets / self.batches.batches_per_epoch

    def _targets_per_s(self, now: float) -> float:
        return self.steps_of_epoch * self._targets_per_step() / max(now - self.began_epoch, 1e-9)

    def _seconds_left(self, now: float) -> float:
        per_step = (now - self.began) / max(1, self.steps)
        done = self.batches.epoch * self.batches.batches_per_epoch + self.batches.first_batch
        total = self.epochs * self.batches.batches_per_epoch
        return per_step * max(0, total - done - self.steps_of_epoch)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
