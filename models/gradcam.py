"""Where a network looks: Grad-CAM (Selvaraju et al. 2017) over space and time, as figures 1 and 5 of the paper.

Shape legend: B clips, C channels, T frames, H rows, W columns, N classes; t, h, w of a stage's features.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checkpoint import Checkpoint, load_checkpoint
from models.data import AlignedWindows, Batch, CentralWindows, batches_in_order
from models.hardware import device
from models.options import ModelOptions
from models.runs import RunFolder, select_evaluation
from models.streams import network_input
from stores import files


@dataclass(frozen=True)
class Responses:
    """What a network sees in one clip, and where.

    Attributes:
        run, stream: of the network.
        clip_THWC: the input, uint8; two channels for flow.
        maps_THW: in [0, 1], the largest response of the clip is 1; all 0 where nothing speaks for the class.
        label: the class that the maps explain.
        probability: of that class.
        predicted: the most probable class.
        truth: the clip's own label.
    """

    run: str
    stream: str
    clip_THWC: Tensor
    maps_THW: Tensor
    label: str
    probability: float
    predicted: str
    truth: str


def stages(network: nn.Module) -> list[str]:
    """The names that `grad_cam` knows without looking inside stages."""
    return [
        name for name, child in network.named_children() if name != "classifier" and list(child.parameters())
    ]


def grad_cam(
    network: nn.Module, clips_BCTHW: Tensor, *, stage: str, classes_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`relu(Σ_c α_c A_c)` with α_c the mean over t, h, w of ∂ logit / ∂ A_c.

    Args:
        network: in evaluation mode; its parameters are frozen, so that memory holds no more than what comes after
            the stage.
        stage: name of a module whose output A is [B, C, t, h, w]: res2 … res5, or inside a stage, mixed_5.5b.
        classes_B: the classes to explain; None takes the predicted ones.

    Returns:
        maps [B, t, h, w] and logits [B, N].

    Raises:
        ValueError: there is no such stage, or its output has another shape.
    """
    module = _stage(network, stage)
    network.requires_grad_(False)
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()  # what comes next may write into it

    handle = module.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits_BN = network(clips_BCTHW)
            chosen_B = logits_BN.argmax(dim=1) if classes_B is None else classes_B
            score = logits_BN.gather(1, chosen_B[:, None]).sum()
            (features,) = seen
            if features.ndim != 5:
                raise ValueError(
                    f"--stage: {stage} has no maps over time and space; choose a stage before pooling"
                )
            (gradients,) = torch.autograd.grad(score, features)
    finally:
        handle.remove()
    weights_BC = gradients.mean(dim=(2, 3, 4))
    maps = torch.relu(torch.einsum("bc,bcthw->bthw", weights_BC, features.detach()))
    return maps, logits_BN.detach()


def _stage(network: nn.Module, stage: str) -> nn.Module:
    try:
        return network.get_submodule(stage)
    except AttributeError as error:
        known = ", ".join(stages(network))
        raise ValueError(f"--stage: the network has no {files.quoted(stage)}; it has {known}") from error


def stretched(maps_Bthw: Tensor, size_THW: tuple[int, int, int]) -> Tensor:
    """Maps at the size of the input, each clip's largest value 1."""
    maps_BTHW = F.interpolate(maps_Bthw[:, None].float(), size_THW, mode="trilinear", align_corners=False)[
        :, 0
    ]
    largest_B = maps_BTHW.amax(dim=(1, 2, 3)).clamp_min(torch.finfo(torch.float32).tiny)
    return maps_BTHW / largest_B[:, None, None, None]


def explain(
    run: str,
    clip_id: str,
    *,
    workspace: str,
    options: ModelOptions,
    stage: str | None = None,
    label: str | None = None,
) -> Responses:
    """Grad-CAM of a trained run on the central window of one clip of its stores.

    Args:
        stage: as for `grad_cam`; None takes the last one.
        label: the class to explain; None takes the predicted one.

    Raises:
        ValueError: the run is not trained, does not know the label, or its stores do not hold the clip.
    """
    folder = RunFolder(workspace, run)
    if folder.done is None:
        raise ValueError(f"run {run} is not trained; run `perfnet train {run}`")
    checkpoint = load_checkpoint(folder.checkpoint)
    selection = select_evaluation(run, workspace=workspace, options=options)
    clips = [clip for clip in selection.clips if clip.clip_id == clip_id]
    if not clips:
        raise ValueError(
            f"clip {files.quoted(clip_id)} has no split in column {options.data.split!r} or is not in the store "
            f"{options.store_of(checkpoint.stream)}; see `perfnet status`"
        )
    readers = {checkpoint.stream: selection.readers[checkpoint.stream]}
    dataset = AlignedWindows(readers, clips, choose=CentralWindows(checkpoint.evaluate))
    (batch,) = batches_in_order(dataset, 1)
    return _respond(run, checkpoint, batch, stage=stage, label=label, truth=clips[0].label)


def _respond(
    run: str, checkpoint: Checkpoint, batch: Batch, *, stage: str | None, label: str | None, truth: str
) -> Responses:
    labels = list(checkpoint.labels)
    if label is not None and label not in labels:
        raise ValueError(f"--label: run {run} does not know {files.quoted(label)}; it knows {_few(labels)}")
    classes_B = None if label is None else torch.tensor([labels.index(label)], device=device())
    on_device = {k: v.to(device()) if isinstance(v, Tensor) else v for k, v in batch.items()}
    network = checkpoint.build().to(device())
    seen = network_input(on_device, checkpoint.stream, checkpoint.normalisation)
    last = stages(network)[-1]
    maps, logits_BN = grad_cam(network, seen, stage=stage or last, classes_B=classes_B)
    probabilities_N = torch.softmax(logits_BN[0].float(), dim=0)
    predicted = labels[int(probabilities_N.argmax())]
    shown = label or predicted
    size = (seen.shape[2], seen.shape[3], seen.shape[4])
    return Responses(
        run=run,
        stream=checkpoint.stream,
        clip_THWC=batch[checkpoint.stream][0],
        maps_THW=stretched(maps, size)[0].cpu(),
        label=shown,
        probability=float(probabilities_N[labels.index(shown)]),
        predicted=predicted,
        truth=truth,
    )


def _few(labels: list[str]) -> str:
    return ", ".join(map(files.printable, labels[:8])) + (
        f" and {len(labels) - 8} more" if len(labels) > 8 else ""
    )
