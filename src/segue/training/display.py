"""How a training shows itself: a bar on a terminal, one line an epoch elsewhere."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from segue.training.observers import Measures
from segue.training.plan import Plan

# Reading the loss waits for the device, so the bar does it this seldom.
REFRESH_S = 0.5


class ProgressDisplay:
    """An `Observer` that shows loss, targets a second and time left, on standard error."""

    def __init__(self, plan: Plan, epochs: int) -> None:
        self._targets_per_epoch = plan.windows.num_targets
        self._batches_per_epoch = plan.batches_per_epoch
        self._epochs = epochs
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[rate]:,.0f} targets/s"),
            TextColumn("{task.fields[left]} left"),
            console=self._console,
            transient=True,
            auto_refresh=False,
        )
        self._task = self._bar.add_task(
            "training", epoch=0, epochs=epochs, loss=float("nan"), rate=0.0, left="?", total=None
        )
        self._epoch = 0
        self._first_batch = 0
        self._done = 0
        self._steps_before = 0
        self._began = time.perf_counter()
        self._began_epoch = self._began
        self._shown = 0.0
        if self._console.is_terminal:
            self._bar.start()

    def on_epoch_start(self, epoch: int, first_batch: int) -> None:
        """As `Observer.on_epoch_start`."""
        self._epoch, self._first_batch, self._done = epoch, first_batch, first_batch
        self._began_epoch = time.perf_counter()
        self._bar.update(self._task, epoch=epoch, total=self._batches_per_epoch, completed=0)

    def on_step(self, done: int, loss: Callable[[], float]) -> None:
        """As `Observer.on_step`."""
        self._done = done
        now = time.perf_counter()
        if not self._console.is_terminal or now - self._shown < REFRESH_S:
            return
        self._shown = now
        self._bar.update(
            self._task,
            completed=done,
            loss=loss(),
            rate=self._targets_per_s(now),
            left=_duration(self._seconds_left(now)),
        )
        self._bar.refresh()

    def on_epoch_end(self, curves: Sequence[Measures]) -> None:
        """As `Observer.on_epoch_end`."""
        measures = curves[-1]
        rate = self._targets_per_epoch / max(measures["seconds"], 1e-9)
        left = _duration(self._seconds_left(time.perf_counter()))
        self._steps_before += self._done - self._first_batch
        self._first_batch = self._done
        others = [
            f"{name} {value:.4f}"
            for name, value in measures.items()
            if name not in ("epoch", "seconds")
        ]
        parts = [f"epoch {self._epoch}/{self._epochs}", *others]
        parts += [f"{rate:,.0f} targets/s", f"{left} left"]
        self._console.print("  ".join(parts), highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._console.is_terminal:
            self._bar.stop()

    def _targets_per_s(self, now: float) -> float:
        share = (self._done - self._first_batch) / self._batches_per_epoch
        return share * self._targets_per_epoch / max(now - self._began_epoch, 1e-9)

    def _seconds_left(self, now: float) -> float:
        steps = self._steps_before + self._done - self._first_batch
        per_step = (now - self._began) / max(1, steps)
        passed = (self._epoch - 1) * self._batches_per_epoch + self._done
        return per_step * max(0, self._epochs * self._batches_per_epoch - passed)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
