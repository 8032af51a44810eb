"""Runs an experiment: brings stores up to date, trains and evaluates what is missing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from models.options import role_of
from models.runs import RunFolder, evaluation_stale_reason, stale_reason
from pipelines.chain import Chain, needs, selection
from pipelines.config import Config
from pipelines.experiment import Experiment, Training
from pipelines.progress import Screen
from pipelines.stages import STAGES, store_name
from stores import files
from stores.checks import StageFailed
from stores.store import Store

_DATA_SECTIONS = ("clips", "store", "frames", "pose", "render", "flow")


@dataclass
class ExperimentRun:
    """One invocation of `perfnet experiment`.

    Attributes:
        retrain: also runs that were trained with another configuration.
        failed: run → why it could not be trained or evaluated.
    """

    experiment: Experiment
    screen: Screen
    retrain: bool = False
    beam_args: Sequence[str] = ()
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def workspace(self) -> str:
        return self.experiment.base.workspace

    def show_plan(self, trainings: Sequence[Training]) -> None:
        """What would be done, one line a store, a training and an evaluation."""
        for config, stages in stages_of(trainings):
            chain = self._chain(config)
            chain.show_plan(chain.plan(stages))
        evaluations = 0
        for training in trainings:
            reason = self.reason(training)
            self.screen.line(f"plan: train {training.run}: {f'stale: {reason}' if reason else 'fresh'}")
            evaluations += bool(reason or self._evaluation_reason(training))
        self.screen.line(f"plan: evaluate {evaluations} of {len(trainings)} runs")

    def reason(self, training: Training) -> str | None:
        return stale_reason(training.run, workspace=self.workspace, options=training.options)

    def _evaluation_reason(self, training: Training) -> str | None:
        return evaluation_stale_reason(training.run, workspace=self.workspace, options=training.options)

    def prepare(self, trainings: Sequence[Training]) -> None:
        """Brings the stores that the trainings read up to date.

        Raises:
            ValueError: the clips table has no such split column, which is said before the work.
        """
        for config, stages in stages_of(trainings):
            chain = self._chain(config)
            for column in self.experiment.splits:
                chain.clips.split(column)
            chain.run(stages)

    def _chain(self, config: Config) -> Chain:
        return Chain(config, self.screen, self.beam_args)

    def check(self, trainings: Sequence[Training]) -> None:
        """Before hours of work: files to start from are there, runs of another configuration are not overwritten.

        Runs whose stores are not there yet are looked at when it is their turn.

        Raises:
            ValueError: names the file, or the run and what differs.
        """
        changing: set[str] = set()
        for training in trainings:
            _check_weights(training)
            if not self._has_stores(training):
                continue
            reason = self.reason(training)
            if reason:
                changing.add(training.run)
            if not changing.intersection(training.teachers):
                self._refuse_other_configuration(training, reason)

    def _has_stores(self, training: Training) -> bool:
        names = needs(f"train-{role_of(training.run)}", training.config)
        stores = [store_name(name, training.config) for name in names if name in STAGES]
        return all(Store(self.workspace, name).snapshot() for name in stores)

    def _refuse_other_configuration(self, training: Training, reason: str | None) -> None:
        if reason and not self.retrain and RunFolder(self.workspace, training.run).done is not None:
            raise ValueError(
                f"run {training.run} was trained otherwise ({reason}); train it again with --retrain, "
                f"or choose another --workspace"
            )

    def train(self, trainings: Sequence[Training]) -> None:
        """Trains and evaluates what is missing, in order; what fails is said and the rest goes on."""
        for number, training in enumerate(trainings, start=1):
            unmet = [teacher for teacher in training.teachers if teacher in self.failed]
            if unmet:
                self.failed[training.run] = f"teacher {unmet[0]} failed"
                continue
            self.screen.line(f"experiment: run {number} of {len(trainings)}, {training.run}")
            try:
                self._train(training)
            except StageFailed as error:
                self.failed[training.run] = str(error)
                self.screen.line(f"experiment: {training.run} failed: {error}")
        self.screen.close()

    def raise_failed(self, of: int) -> None:
        """Ends the command with exit code 1 where something failed, after the table.

        Raises:
            StageFailed: names the first.
        """
        for run, why in self.failed.items():
            raise StageFailed(f"{len(self.failed)} of {of} runs failed, the first is {run}: {why}")

    def _train(self, training: Training) -> None:
        reason = self.reason(training)
        if reason:
            from models.train import train

            self._refuse_other_configuration(training, reason)
            train(
                training.run,
                workspace=self.workspace,
                options=training.options,
                progress=self.screen.say,
            )
        if self._evaluation_reason(training):
            from models.evaluation import evaluate

            evaluate(
                training.run,
                workspace=self.workspace,
                options=training.options,
                progress=self.screen.say,
            )


def _check_weights(training: Training) -> None:
    for name in ("inflate_from", "start_from"):
        uri = getattr(training.config.network, name)
        if uri and not files.exists(uri):
            raise ValueError(
                f"network.{name} of {training.run}: {files.printable(uri)} does not exist; "
                "the head of the recipe says where it comes from"
            )


def stages_of(trainings: Sequence[Training]) -> list[tuple[Config, list[str]]]:
    """The stages to run for each way in which the stores are configured, in order."""
    found: dict[str, tuple[Config, set[str]]] = {}
    for training in trainings:
        wanted = [s for s in needs(f"train-{role_of(training.run)}", training.config) if s in STAGES]
        # How people are rendered says nothing of runs that read no rendered store.
        sections = [name for name in _DATA_SECTIONS if name != "render" or "render" in wanted]
        key = json.dumps({name: repr(getattr(training.config, name)) for name in sections})
        found.setdefault(key, (training.config, set()))[1].update(wanted)
    return [
        (config, [item for item in selection(sorted(stages), config) if item in STAGES])
        for config, stages in found.values()
    ]
