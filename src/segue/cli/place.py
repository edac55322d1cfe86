"""Where a run is written: refused before work starts, and the checkpoint beside it."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segue.errors import OutputError


@dataclass(frozen=True)
class Place:
    """A directory for a run. Making one refuses a place that is taken or cannot be written.

    Attributes:
        run: The directory of the run to be.
        force: Whether a run that stands there, or a checkpoint beside it, may be replaced.
        is_resumed: Whether the training goes on from the checkpoint.

    Raises:
        OutputError: Something is in the way.
    """

    run: Path
    force: bool
    is_resumed: bool = False

    def __post_init__(self) -> None:
        from segue.artifact import check_output

        if self.run.parent.exists():
            check_output(self.run, force=self.force)
        if self.checkpoint.exists() and not (self.force or self.is_resumed):
            raise OutputError(
                f"{self.checkpoint} holds an interrupted training; go on from it with --resume, or "
                f"give it up with --force"
            )

    @property
    def checkpoint(self) -> Path:
        """The directory of the training's checkpoint."""
        return self.run.with_name(f"{self.run.name}.checkpoint")

    def prepare(self) -> None:
        """Make the directories above and give up an old checkpoint, right before training.

        Raises:
            OutputError: What stood in nobody's way at first does now.
            OSError: A directory cannot be made.
        """
        from segue.artifact import check_output

        self.run.parent.mkdir(parents=True, exist_ok=True)
        check_output(self.run, force=self.force)
        if not self.is_resumed:
            self.remove_checkpoint()

    def remove_checkpoint(self) -> None:
        """Remove what training saved; whatever else may lie in the directory stays."""
        from segue.training.checkpoint import FILE_NAME

        # What a training that was killed while it saved left behind has a longer name.
        for file in self.checkpoint.glob(f"*{FILE_NAME}*"):
            file.unlink(missing_ok=True)
        with suppress(OSError):
            self.checkpoint.rmdir()
