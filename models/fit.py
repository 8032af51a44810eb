"""Fits the network of a run with Lightning: builds it, feeds it, follows it."""

import logging
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from lightning_fabric.utilities import move_data_to_device as to_device
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader

from models.callbacks import BestWeights, MetricsFile, Progress, ProgressLines, ResumeCheckpoints
from models.checkpoint import Checkpoint, build_network, load_checkpoint
from models.data import AlignedWindows, Batch, CentralWindows, EpochBatches, RandomWindows, loader
from models.distill import DistilledClassifier, Teacher
from models.hardware import autocast, checkpoint_activations, device, lightning_precision
from models.inflation import inflate, inflated_normalisation
from models.normalisation import Normalisation, normalisation_of
from models.options import ModelOptions
from models.r3d import Cell
from models.ranks import Ranks
from models.recalibration import recalibrate
from models.runs import RunFolder, streams_of
from models.s3d import Mixed
from models.selection import Selection
from models.streams import StreamClassifier
from stores import files

_LOG_EVERY_STEPS = 10


@dataclass(frozen=True)
class Plan:
    """What is about to be trained.

    Attributes:
        document, key: what determines the result, and its digest.
        batches: of one epoch, as this rank sees them.
        total_steps: of the whole training.
        resumed_step: steps that an earlier, interrupted training has done.
        ranks: this process among those of the training.
    """

    folder: RunFolder
    options: ModelOptions
    selection: Selection
    document: Mapping[str, Any]
    key: str
    batches: EpochBatches
    total_steps: int
    resumed_step: int
    ranks: Ranks


def fit(plan: Plan, teachers: Mapping[str, Checkpoint], progress: Progress) -> StreamClassifier:
    """Runs all steps that are left, takes the best weights where there is a val split, recalibrates."""
    options, windows, validation = plan.options, _windows(plan), _validation(plan)
    module = _module(plan, teachers, progress)
    best = BestWeights()
    with _quiet():
        metrics = MetricsFile(plan.folder.uri("metrics.csv"), resumed_step=plan.resumed_step)
        # Best weights first: what is saved to resume from holds them.
        trainer = _trainer(
            plan, metrics, [*([best] if validation else []), *_callbacks(plan, metrics, progress)]
        )
        resume = files.local_path(plan.folder.resume) if plan.resumed_step else None
        batches = loader(windows, plan.batches, workers=options.data.workers)
        trainer.fit(module, batches, validation, ckpt_path=resume, weights_only=True)
    if best.weights is not None:
        module.network.load_state_dict(best.weights)
    elif options.train.recalibration_batches:
        module.to(device())  # Lightning has taken it back to the CPU, where ranks of GPUs cannot meet
        with autocast(options.train.precision):
            recalibrate(module, (to_device(batch, device()) for batch in _recalibration(plan, windows)))
        module.cpu()
    return module


def _module(plan: Plan, teachers: Mapping[str, Checkpoint], progress: Progress) -> StreamClassifier:
    options = plan.options
    stream = streams_of(plan.folder.run, options)[0]
    network, normalisation = _network(plan, stream, progress)
    shared: dict[str, Any] = {
        "stream": stream,
        "normalisation": normalisation,
        "options": options.train,
        "total_steps": plan.total_steps,
    }
    if not teachers:
        return StreamClassifier(network, **shared)
    taught_by = {
        name: Teacher.of(checkpoint, precision=options.train.precision, compiled=options.train.compile)
        for name, checkpoint in teachers.items()
    }
    return DistilledClassifier(network, teachers=taught_by, student=options.student, **shared)


def _network(plan: Plan, stream: str, progress: Progress) -> tuple[nn.Module, Normalisation]:
    """The network with the weights that training starts from, and what its input must become."""
    options, normalisation = plan.options, normalisation_of(stream)
    o = options.network
    torch.manual_seed(options.train.seed)
    network = build_network(
        o,
        num_classes=len(plan.selection.labels),
        in_channels=normalisation.channels,
        norm_momentum=options.train.norm_momentum,
    )
    if o.inflate_from:
        report = inflate(network, o.inflate_from, backbone=o.backbone)
        normalisation = inflated_normalisation(stream, normalisation, backbone=o.backbone)
        if plan.ranks.is_first:
            plan.folder.put_json("inflation.json", asdict(report))
        progress(f"{plan.folder.run}: {report}")
    elif o.start_from:
        start = load_checkpoint(o.start_from)
        start.transfer(network, o, stream=stream)
        normalisation = start.normalisation
    if options.train.checkpoint_activations:
        checkpoint_activations(network, (Cell, Mixed))
    if options.train.compile:
        network.compile()
    return network, normalisation


def _windows(plan: Plan) -> AlignedWindows:
    data = plan.options.data
    return AlignedWindows(
        plan.selection.readers,
        plan.selection.by_split["train"],
        choose=RandomWindows(data, plan.options.train.seed),
        cache_mb=data.cache_mb,
    )


def _validation(plan: Plan) -> DataLoader | None:
    """This rank's share of the val split: the ranks' shares may differ by a clip."""
    clips = plan.selection.by_split["val"]
    if not clips:
        return None
    evaluate = plan.options.evaluate
    dataset = AlignedWindows(plan.selection.readers, clips, choose=CentralWindows(evaluate))
    places = [(0, index) for index in range(plan.ranks.rank, len(clips), plan.ranks.world)]
    size = evaluate.batch_size
    return loader(dataset, [places[i : i + size] for i in range(0, len(places), size)])


def _callbacks(plan: Plan, metrics: MetricsFile, progress: Progress) -> list[pl.Callback]:
    o, folder = plan.options.train, plan.folder
    callbacks: list[pl.Callback] = [
        ResumeCheckpoints(folder.resume, minutes=o.checkpoint_minutes, before=metrics.flush)
    ]
    if plan.ranks.is_first:
        lines = ProgressLines(folder.run, progress, total_steps=plan.total_steps, batch_size=o.batch_size)
        callbacks.append(lines)
    return callbacks


def _trainer(plan: Plan, metrics: MetricsFile, callbacks: list[pl.Callback]) -> pl.Trainer:
    o, ranks = plan.options.train, plan.ranks
    together: dict[str, Any] = {"devices": 1}
    if ranks.world > 1:
        # Without broadcast_buffers the ranks meet only where gradients are averaged, so that unequal shares of the
        # val split cannot make one wait for ever. Running statistics are those of rank 0, as ever.
        ddp = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
        together = {
            "devices": ranks.on_machine,
            "num_nodes": ranks.world // ranks.on_machine,
            "strategy": ddp,
            "plugins": [TorchElasticEnvironment()],
            "sync_batchnorm": o.sync_norm,
        }
    return pl.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        precision=lightning_precision(o.precision),
        max_steps=plan.total_steps,
        accumulate_grad_batches=o.accumulate,
        logger=[metrics, _tensorboard(plan)] if ranks.is_first else False,
        callbacks=callbacks,
        check_val_every_n_epoch=o.validate_epochs,
        log_every_n_steps=min(_LOG_EVERY_STEPS, plan.batches.steps),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=plan.folder.uri(),
        **together,
    )


def _recalibration(plan: Plan, windows: AlignedWindows) -> Iterator[Batch]:
    """Batches of training windows that the training itself did not see: those of the epochs after its last."""
    first = plan.total_steps // plan.batches.steps + 1

    def endless() -> Iterator[Batch]:
        epoch = first
        while True:
            plan.batches.set_epoch(epoch)
            yield from loader(windows, plan.batches)
            epoch += 1

    o = plan.options.train
    return islice(endless(), o.recalibration_batches * o.accumulate)


def _tensorboard(plan: Plan) -> pl.loggers.TensorBoardLogger:
    """TensorBoard events beside the CSV.

    TensorBoard would load TensorFlow (seconds, hundreds of megabytes) only to write files; the presence of the
    module `notf` makes it use its own small replacement.
    """
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
    purge = plan.resumed_step or None
    return pl.loggers.TensorBoardLogger(plan.folder.uri(), name="tensorboard", version="", purge_step=purge)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's chatter (hardware found, advice on workers) from the screen."""
    loggers = [
        logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", module="pytorch_lightning|lightning_fabric|torch.optim|torch.utils"
            )
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
