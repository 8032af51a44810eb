from dataclasses import replace

import pytest
import torch
from moving_squares import SMALL
from torch import nn

from models.checkpoint import Checkpoint, build_network
from models.distill import DistilledClassifier, Teacher
from models.losses import cross_entropy
from models.normalisation import FLOW, PIXELS, normalisation_of
from models.options import NetworkOptions, StudentOptions
from models.streams import StreamClassifier, network_input


def checkpoint(stream, seed):
    torch.manual_seed(seed)
    normalisation = normalisation_of(stream)
    network = build_network(SMALL.network, num_classes=3, in_channels=normalisation.channels)
    nn.init.normal_(network.classifier.weight)
    return Checkpoint(
        stream,
        stream,
        ("a", "b", "c"),
        SMALL.network,
        normalisation,
        SMALL.evaluate,
        {},
        "k",
        network.state_dict(),
    )


@pytest.fixture
def batch():
    torch.manual_seed(0)
    ones = torch.ones(2)
    clip = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    flow = torch.randint(1, 256, (2, 4, 32, 32, 2), dtype=torch.uint8)
    return {
        "rgb": clip,
        "pose": 255 - clip,
        "flow": flow,
        "class": torch.tensor([0, 2]),
        "brightness": 0 * ones,
        "contrast": ones,
        "scale": ones,
        "clip_id": ["x", "y"],
    }


def student(teachers, **options):
    torch.manual_seed(9)
    network = build_network(SMALL.network, num_classes=3, in_channels=3)
    return DistilledClassifier(
        network,
        teachers={name: Teacher.of(c, precision="32") for name, c in teachers.items()},
        student=StudentOptions(**options),
        stream="rgb",
        normalisation=PIXELS,
        options=SMALL.train,
        total_steps=10,
    )


class Fabric:
    """Stands in for the trainer: between two steps that are logged."""

    global_step, log_every_n_steps = 1, 10


@pytest.fixture(autouse=True)
def no_trainer(monkeypatch):
    monkeypatch.setattr(DistilledClassifier, "trainer", Fabric())


TEACHERS = {"pose": checkpoint("pose", 1), "flow": checkpoint("flow", 2)}


def test_each_teacher_sees_its_own_stream_of_the_batch(batch):
    teacher = Teacher.of(TEACHERS["flow"], precision="32")
    before = teacher.logits(batch)
    assert torch.equal(teacher.logits({**batch, "rgb": batch["rgb"] * 0, "pose": batch["pose"] * 0}), before)
    assert not torch.equal(teacher.logits({**batch, "flow": 256 - batch["flow"]}), before)


def test_the_loss_is_label_plus_weighted_teachers(batch):
    logits = torch.randn(2, 3)
    module = student(TEACHERS, weight=0.3)
    loss, parts = module.loss(logits, batch)
    expected = cross_entropy(logits, batch["class"])
    for name, c in TEACHERS.items():
        error = (logits - Teacher.of(c, precision="32").logits(batch)).square().mean()
        torch.testing.assert_close(parts[name], error)
        expected = expected + 0.3 * error
    torch.testing.assert_close(loss, expected)


def test_the_unified_loss_targets_the_teachers_sum(batch):
    logits = torch.randn(2, 3)
    loss, parts = student(TEACHERS, loss="unified", reduction="sum").loss(logits, batch)
    total = sum(Teacher.of(c, precision="32").logits(batch) for c in TEACHERS.values())
    error = (logits - total).square().sum(dim=1).mean()
    torch.testing.assert_close(parts["unified"], error)
    torch.testing.assert_close(loss, error + cross_entropy(logits, batch["class"]))


def test_teachers_stay_frozen_in_evaluation_mode_and_outside_the_student(batch):
    module = student(TEACHERS).train()
    before = {k: v.clone() for k, v in module._teachers["pose"].network.state_dict().items()}
    loss, _ = module.loss(module(batch), batch)
    loss.backward()
    teacher = module._teachers["pose"].network
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(name.startswith("network.") for name in module.state_dict())
    (group,) = module.configure_optimizers()["optimizer"].param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in module.network.parameters()}


def test_weight_zero_is_the_plain_loss(batch):
    logits = torch.randn(2, 3)
    loss, _ = student(TEACHERS, weight=0.0).loss(logits, batch)
    plain = StreamClassifier(
        nn.Identity(), stream="rgb", normalisation=PIXELS, options=SMALL.train, total_steps=1
    )
    torch.testing.assert_close(loss, plain.loss(logits, batch)[0])


def test_agreement_is_the_share_of_clips_with_the_same_answer(batch):
    teacher = Teacher.of(TEACHERS["pose"], precision="32")
    same = teacher.logits(batch)
    _, parts = student({"pose": TEACHERS["pose"]}).loss(same, batch)
    assert parts["agreement_pose"] == 1
    other = torch.stack([same[0], same[1].roll(1)])
    _, parts = student({"pose": TEACHERS["pose"]}).loss(other, batch)
    assert parts["agreement_pose"] == 0.5


@pytest.mark.parametrize("network", [replace(SMALL.network, width=0.2), NetworkOptions("s3dg", width=0.1)])
def test_a_teacher_of_another_width_or_backbone_teaches_as_well(batch, network):
    other = build_network(network, num_classes=3, in_channels=2)
    changed = replace(TEACHERS["flow"], network=network, weights=other.state_dict())
    teacher = Teacher.of(changed, precision="32")
    assert teacher.normalisation == FLOW
    assert teacher.logits(batch).shape == (2, 3)


def seen_something(c):
    """The checkpoint with statistics that normalisation layers have after training."""
    torch.manual_seed(3)
    weights = {name: value.clone() for name, value in c.weights.items()}
    for name, value in weights.items():
        if name.endswith("running_mean"):
            value.uniform_(-0.1, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return replace(c, weights=weights)


@pytest.mark.parametrize("network", [SMALL.network, NetworkOptions("s3dg", width=0.1, blocks=(1, 1, 1))])
def test_a_teacher_gives_the_logits_of_its_network_without_normalisation_layers(batch, network):
    other = build_network(network, num_classes=3, in_channels=2)
    nn.init.normal_(other.classifier.weight)
    c = seen_something(replace(TEACHERS["flow"], network=network, weights=other.state_dict()))
    expected = c.build()(network_input(batch, "flow", FLOW))
    teacher = Teacher.of(c, precision="32")
    assert not any(isinstance(m, nn.BatchNorm3d) for m in teacher.network.modules())
    torch.testing.assert_close(teacher.logits(batch), expected, rtol=1e-4, atol=1e-4)
    rough = Teacher.of(c, precision="bf16")
    assert {p.dtype for p in rough.network.parameters()} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        found = rough.logits(batch)
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < 0.05


def test_rgb_can_be_a_teacher_among_any_others(batch):
    teachers = {**TEACHERS, "rgb-seed1": checkpoint("rgb", 5)}
    _, parts = student(teachers).loss(torch.randn(2, 3), batch)
    assert {"pose", "flow", "rgb-seed1", "agreement_rgb-seed1", "label"} <= set(parts)
