"""What happens beside the training steps: progress lines, checkpoints to resume from, best weights, metrics."""

import csv
import io
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger
from torch import Tensor

from models.lines import Passing
from models.ranks import agreed
from stores import files

Progress = Callable[[str], None]
_LINE_EVERY_S = 10.0


class ProgressLines(pl.Callback):
    """A short line now and then: epoch, loss, accuracy, clips a second, time left."""

    def __init__(self, name: str, progress: Progress, *, total_steps: int, batch_size: int) -> None:
        self._name, self._progress = name, progress
        self._total_steps, self._batch_size = total_steps, batch_size
        self._sums = {"loss": 0.0, "accuracy": 0.0}
        self._steps = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._began_s = self._said_s = time.monotonic()
        self._began_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for name in self._sums:
            self._sums[name] += float(outputs[name])
        self._steps += 1
        last = trainer.global_step >= self._total_steps
        if last or time.monotonic() - self._said_s >= _LINE_EVERY_S:
            self._say(trainer)

    def _say(self, trainer: pl.Trainer) -> None:
        now_s = time.monotonic()
        done = trainer.global_step
        seconds_a_step = (now_s - self._began_s) / max(done - self._began_step, 1)
        left = clock((self._total_steps - done) * seconds_a_step)
        loss, accuracy = (total / self._steps for total in self._sums.values())
        line = (
            f"{self._name}: step {done} of {self._total_steps}, loss {loss:.3f}, accuracy {accuracy:.2f}, "
            f"{self._batch_size / seconds_a_step:.1f} clips/s, {left} left"
        )
        self._progress(line if done >= self._total_steps else Passing(line))
        self._said_s, self._steps = now_s, 0
        self._sums = dict.fromkeys(self._sums, 0.0)


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any: 0:07, 12:30, 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class ResumeCheckpoints(pl.Callback):
    """Keeps one file from which a killed training goes on, replaced whole every few minutes.

    At the end of an epoch that is judged it is written after the judgement, which would otherwise be lost.

    Args:
        before: called before each save.
    """

    def __init__(self, uri: str, *, minutes: float, before: Callable[[], None]) -> None:
        self._uri, self._every_s, self._before = uri, 60 * minutes, before
        self._saved_s = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # between two parts of a batch: gradients are no part of a checkpoint
        if not (trainer.is_last_batch and _judged(trainer)):
            self._save_now_and_then(trainer)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save_now_and_then(trainer)

    def _save_now_and_then(self, trainer: pl.Trainer) -> None:
        if not agreed(time.monotonic() - self._saved_s >= self._every_s):
            return
        if trainer.is_global_zero:
            self._before()
            with files.staged(self._uri) as path:
                trainer.save_checkpoint(path)
        else:
            trainer.save_checkpoint("")  # takes part, writes nothing
        self._saved_s = time.monotonic()


def _judged(trainer: pl.Trainer) -> bool:
    """Whether validation follows on this epoch."""
    every = trainer.check_val_every_n_epoch or 1
    return trainer.enable_validation and (trainer.current_epoch + 1) % every == 0


class BestWeights(pl.Callback):
    """Keeps the network's weights that were best on the val split; a tie goes to the lower loss."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] | None = None
        self._best = (-1.0, 0.0)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        found = trainer.callback_metrics
        score = (float(found["val/accuracy"]), -float(found["val/loss"]))
        if score > self._best:
            self._best = score
            self.weights = {k: v.detach().cpu().clone() for k, v in module.network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"best": list(self._best), "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best, self.weights = tuple(state_dict["best"]), state_dict["weights"]


class MetricsFile(Logger):
    """`metrics.csv`: step, metric, value. A resumed training goes on in it.

    Args:
        resumed_step: rows of this step and later are dropped, they come again.
    """

    def __init__(self, uri: str, *, resumed_step: int = 0) -> None:
        super().__init__()
        self._uri = uri
        self._written_s = time.monotonic()
        self._rows = _rows_before(uri, resumed_step) if resumed_step else []

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run's `key.json` holds them."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._rows += [(str(step), n, f"{float(v):.6g}") for n, v in sorted(metrics.items()) if n != "epoch"]

    def save(self) -> None:
        """Called at every logged step: writes only now and then."""
        if time.monotonic() - self._written_s >= _LINE_EVERY_S:
            self.flush()

    def finalize(self, status: str) -> None:
        self.flush()

    def flush(self) -> None:
        """Writes all rows, whole."""
        self._written_s = time.monotonic()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([("step", "metric", "value"), *self._rows])
        files.put_bytes(self._uri, text.getvalue().encode())


def _rows_before(uri: str, step: int) -> list[tuple[str, ...]]:
    if not files.exists(uri):
        return []
    rows = list(csv.reader(io.StringIO(files.read_bytes(uri).decode())))[1:]
    return [tuple(row) for row in rows if int(row[0]) < step]
