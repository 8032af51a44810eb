import csv
import json
import shutil
from dataclasses import replace

import pytest
import torch
from moving_squares import SMALL, put_clips, put_store, put_workspace, squares, with_train
from networks_2d import ResNet

from models.checkpoint import build_network, load_checkpoint
from models.evaluation import evaluate
from models.normalisation import IMAGENET, PIXELS
from models.options import NetworkOptions
from models.runs import RunFolder, evaluation_stale_reason, stale_reason
from models.streams import LossNotFinite, StreamClassifier
from models.train import train


def fit(run, workspace, options=SMALL):
    lines = []
    path = train(run, workspace=str(workspace), options=options, progress=lines.append)
    return load_checkpoint(str(path)), lines


def reason(run, workspace, options=SMALL):
    return stale_reason(run, workspace=str(workspace), options=options)


def equal(first, second):
    return all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace with all four runs trained."""
    workspace = put_workspace(
        tmp_path_factory.mktemp("trained"), squares(4, split="train") + squares(2, split="test", seed=1)
    )
    for run in ("pose", "flow", "student"):
        fit(run, workspace)
    return workspace


@pytest.fixture
def copy(trained, tmp_path):
    """The trained workspace, to be changed."""
    return shutil.copytree(trained, tmp_path / "copy")


def test_a_run_leaves_checkpoint_records_and_logs(trained):
    folder = trained / "runs" / "flow"
    assert {p.name for p in folder.iterdir()} == {
        "checkpoints",
        "clips.parquet",
        "done.json",
        "key.json",
        "metrics.csv",
        "tensorboard",
    }
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["final.pt"]
    assert list((folder / "tensorboard").glob("events*"))
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert {row["metric"] for row in rows} >= {"train/loss", "train/accuracy"}


def test_the_checkpoint_says_what_using_it_takes(trained):
    checkpoint = load_checkpoint(str(trained / "runs" / "student" / "checkpoints" / "final.pt"))
    assert (checkpoint.run, checkpoint.stream) == ("student", "rgb")
    assert checkpoint.labels == ("down", "left", "right")
    assert checkpoint.frames == {"shorter_side_px": 32}
    assert checkpoint.network == SMALL.network


def test_a_trained_run_is_fresh(trained):
    assert [reason(run, trained) for run in ("pose", "flow", "student")] == [None, None, None]
    assert reason("rgb", trained) == "never trained"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(workspace):
    first, _ = fit("rgb", workspace)
    shutil.rmtree(workspace / "runs")
    second, _ = fit("rgb", workspace)
    other, _ = fit("rgb", workspace, with_train(SMALL, seed=1))
    assert equal(first, second)
    assert not equal(first, other)


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("killed_at", [1, 3, 4])
def test_a_killed_training_goes_on_to_the_same_weights(workspace, monkeypatch, killed_at, judged):
    """Epochs have three steps: killed in the middle of the first and of the second, and between them."""
    if judged:
        clips = squares(4, split="train") + squares(1, split="val", seed=2)
        workspace = put_workspace(workspace.parent / "judged", clips)
    options = replace(with_train(SMALL, checkpoint_minutes=1e-9), network=replace(SMALL.network, dropout=0.3))
    whole, _ = fit("rgb", workspace, options)
    metrics = (workspace / "runs" / "rgb" / "metrics.csv").read_text()
    shutil.rmtree(workspace / "runs")

    step = StreamClassifier.training_step

    def dies(self, batch, batch_index):
        if self.global_step == killed_at:
            raise MemoryError
        return step(self, batch, batch_index)

    monkeypatch.setattr(StreamClassifier, "training_step", dies)
    with pytest.raises(MemoryError):
        fit("rgb", workspace, options)
    monkeypatch.undo()
    assert reason("rgb", workspace, options) == "its training was interrupted"
    assert not (workspace / "runs" / "rgb" / "pins.json").exists()
    resumed, lines = fit("rgb", workspace, options)
    assert f"going on from step {killed_at}" in lines[0]
    assert equal(whole, resumed)
    assert reason("rgb", workspace, options) is None
    assert (workspace / "runs" / "rgb" / "metrics.csv").read_text() == metrics


def test_another_configuration_starts_anew(workspace, monkeypatch):
    """What an interrupted training of another configuration had done is given up, and that is said."""
    options = with_train(SMALL, checkpoint_minutes=1e-9)
    step = StreamClassifier.training_step

    def dies(self, batch, batch_index):
        if self.global_step == 2:
            raise MemoryError
        return step(self, batch, batch_index)

    with monkeypatch.context() as killing:
        killing.setattr(StreamClassifier, "training_step", dies)
        with pytest.raises(MemoryError):
            fit("rgb", workspace, options)
    _, lines = fit("rgb", workspace, replace(options, data=replace(SMALL.data, window_frames=4)))
    assert lines[0] == (
        "rgb: starts anew, its interrupted training had another configuration: data.window_frames: was 6, is 4"
    )
    assert "going on" not in lines[1]


def test_pins_name_the_shards_that_a_live_training_reads(workspace, monkeypatch):
    seen = {}
    step = StreamClassifier.training_step

    def looks(self, batch, batch_index):
        seen["pins"] = json.loads((workspace / "runs" / "flow" / "pins.json").read_text())
        return step(self, batch, batch_index)

    monkeypatch.setattr(StreamClassifier, "training_step", looks)
    fit("flow", workspace)
    (name,) = [p.name for p in (workspace / "flow" / "shards").glob("*.parquet")]
    assert seen["pins"] == {"stores": {"flow": [name]}}
    assert not (workspace / "runs" / "flow" / "pins.json").exists()


def test_a_changed_setting_is_the_reason(trained):
    assert reason("flow", trained, with_train(SMALL, epochs=3)) == "train.epochs: was 2, is 3"
    slower = replace(SMALL, student=replace(SMALL.student, epochs=5))
    assert reason("flow", trained, slower) is None
    assert reason("student", trained, slower) == "train.epochs: was 2, is 5"


def test_settings_that_change_no_weight_make_nothing_stale(trained):
    other = with_train(SMALL, threads=2, checkpoint_minutes=1.0)
    other = replace(other, data=replace(SMALL.data, cache_mb=0, workers=2))
    assert reason("student", trained, other) is None


def test_another_render_variant_makes_pose_and_student_stale_and_nothing_else(copy):
    other = replace(SMALL, pose_store="render/black-dot-6-uniform")
    clips = squares(4, split="train") + squares(2, split="test", seed=1)
    put_store(copy, other.pose_store, clips, spec={"variant": "black-dot-6-uniform"})
    assert reason("flow", copy, other) is None
    expected = "render.variant: was rgb-bar-13-ratio, is black-dot-6-uniform"
    assert reason("pose", copy, other).startswith(expected)
    assert reason("student", copy, other).startswith(expected)
    fit("pose", copy, other)
    assert "teacher pose was trained again" in reason("student", copy, other)


def test_a_teacher_of_other_stores_is_refused(copy):
    """It would be shown pictures that it has not learnt from."""
    other = replace(SMALL, pose_store="render/black-dot-6-uniform")
    clips = squares(4, split="train") + squares(2, split="test", seed=1)
    put_store(copy, other.pose_store, clips, spec={"variant": "black-dot-6-uniform"})
    expected = (
        r"trained on other stores .*was rgb-bar-13-ratio, is black-dot-6-uniform.*; run `perfnet train pose`"
    )
    with pytest.raises(ValueError, match=rf"student\.teachers: pose was {expected}"):
        fit("student", copy, other)
    with pytest.raises(ValueError, match=f"run pose was {expected}"):
        evaluate("pose", workspace=str(copy), options=other)


def test_new_clips_are_counted_in_the_reason(copy):
    clips = squares(5, split="train") + squares(2, split="test", seed=1)
    put_clips(copy, clips)
    put_store(copy, "flow", clips)
    assert "3 clips were added" in reason("flow", copy)


def test_new_test_clips_make_no_training_stale(copy):
    clips = squares(4, split="train") + squares(3, split="test", seed=1)
    put_clips(copy, clips)
    put_store(copy, "flow", clips)
    assert reason("flow", copy) is None


def test_a_deleted_checkpoint_is_noticed(copy):
    (copy / "runs" / "flow" / "checkpoints" / "final.pt").unlink()
    assert reason("flow", copy) == "its training was interrupted"
    assert reason("student", copy) == "teacher flow is not trained"


def test_training_never_reads_a_test_clip(workspace, monkeypatch):
    from stores.reader import StoreReader

    read, records = set(), StoreReader.records

    def watch(self, clip_id, *window):
        read.add(clip_id)
        return records(self, clip_id, *window)

    monkeypatch.setattr(StoreReader, "records", watch)
    fit("flow", workspace, with_train(SMALL, recalibration_batches=2))
    assert {clip_id.split("/")[0] for clip_id in read} == {"train"}
    assert set(RunFolder(str(workspace), "flow").clips()) == read


def test_with_a_val_split_the_best_weights_are_kept(tmp_path, monkeypatch):
    workspace = put_workspace(tmp_path, squares(4, split="train") + squares(1, split="val", seed=2))
    seen = []
    from models.callbacks import BestWeights

    end = BestWeights.on_validation_end

    def watch(self, trainer, module):
        end(self, trainer, module)
        seen.append((float(trainer.callback_metrics["val/accuracy"]), dict(module.network.state_dict())))
        seen[-1][1].update({k: v.clone() for k, v in seen[-1][1].items()})

    monkeypatch.setattr(BestWeights, "on_validation_end", watch)
    checkpoint, _ = fit("flow", workspace, with_train(SMALL, epochs=4))
    assert len(seen) == 4
    best = max(accuracy for accuracy, _ in seen)
    kept = [
        accuracy
        for accuracy, weights in seen
        if all(torch.equal(weights[name], checkpoint.weights[name]) for name in weights)
    ]
    assert kept == [best]


@pytest.mark.parametrize("run", ["pose+flow", "../rgb", ""])
def test_an_unknown_run_is_refused(workspace, run):
    with pytest.raises(ValueError, match=r"^unknown run .*; known: rgb, pose, flow, student"):
        fit(run, workspace)


def test_fewer_clips_than_a_batch_are_refused(workspace):
    with pytest.raises(ValueError, match=r"train.batch_size: found 13, but the train split has 12 clips"):
        fit("rgb", workspace, with_train(SMALL, batch_size=13))


def test_a_student_without_its_teachers_says_what_to_run(workspace):
    with pytest.raises(ValueError, match=r"student\.teachers: pose is not trained; run `perfnet train pose`"):
        fit("student", workspace)


def test_a_teacher_that_has_seen_test_clips_is_refused(copy):
    """After its training two of its clips were moved to the test split."""
    clips = squares(4, split="train") + squares(2, split="test", seed=1)
    moved = [
        replace(c, split="test") if c.clip_id in ("train/down-00", "train/left-01") else c for c in clips
    ]
    put_clips(copy, moved)
    with pytest.raises(ValueError, match=r"pose was trained on 2 clips .*test split.*'train/down-00'"):
        fit("student", copy)


def test_a_teacher_of_other_classes_is_refused(copy):
    clips = [replace(c, label="right") for c in squares(4, split="train") if c.label != "down"]
    put_clips(copy, clips)
    with pytest.raises(
        ValueError, match=r"pose was trained on 3 classes, the clips table has 1 .*down, left"
    ):
        fit("student", copy)


def test_a_loss_that_is_not_a_number_stops_and_names_the_clips(workspace, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(
            StreamClassifier, "loss", lambda self, logits, batch: (logits.sum() * float("nan"), {})
        )
        with pytest.raises(
            LossNotFinite, match=r"the loss is nan at step 0 on the clips train/.*learning_rate"
        ):
            fit("rgb", workspace, with_train(SMALL, batch_size=12))
    written = json.loads((workspace / "runs" / "rgb" / "not_finite.json").read_text())
    assert (written["loss"], written["step"]) == ("nan", 0)
    assert sorted(written["clip_ids"]) == sorted(c.clip_id for c in squares(4, split="train"))
    fit("rgb", workspace)
    assert not (workspace / "runs" / "rgb" / "not_finite.json").exists()


def test_parts_of_a_batch_add_up_to_it(workspace):
    """With frozen statistics the parts cannot see each other: only the rounding differs."""
    whole = with_train(SMALL, freeze_norm=True, steps=6)
    at_once, _ = fit("rgb", workspace, whole)
    in_parts, _ = fit("rgb", workspace, with_train(whole, accumulate=4))
    for name, value in at_once.weights.items():
        torch.testing.assert_close(in_parts.weights[name], value, rtol=1e-4, atol=1e-6)


def test_a_training_in_parts_goes_on_where_it_was_killed(workspace, monkeypatch):
    options = with_train(SMALL, accumulate=2, checkpoint_minutes=1e-9)
    whole, _ = fit("rgb", workspace, options)
    shutil.rmtree(workspace / "runs")
    step = StreamClassifier.training_step

    def dies(self, batch, batch_index):
        if self.global_step == 4 and batch_index % 2:
            raise MemoryError
        return step(self, batch, batch_index)

    with monkeypatch.context() as killing:
        killing.setattr(StreamClassifier, "training_step", dies)
        with pytest.raises(MemoryError):
            fit("rgb", workspace, options)
    resumed, lines = fit("rgb", workspace, options)
    assert "going on from step 4" in lines[0]
    assert equal(whole, resumed)


@pytest.mark.parametrize("backbone", ["r3d50g", "s3dg"])
def test_activations_computed_again_give_the_same_weights(workspace, backbone):
    network = SMALL.network if backbone == "r3d50g" else NetworkOptions("s3dg", width=0.1, blocks=(1, 1, 1))
    options = with_train(replace(SMALL, network=network), steps=3)
    kept, _ = fit("rgb", workspace, options)
    shutil.rmtree(workspace / "runs")
    again, _ = fit("rgb", workspace, with_train(options, checkpoint_activations=True))
    for name, value in kept.weights.items():
        torch.testing.assert_close(again.weights[name], value, rtol=1e-4, atol=1e-6)


def test_student_and_teachers_are_compiled_where_that_is_asked_for(copy, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self.classifier.in_features))
    fit("student", copy, with_train(SMALL, compile=True))
    assert len(compiled) == 3


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_logits():
    network = build_network(SMALL.network, num_classes=3, in_channels=3).eval()
    clip = torch.rand(1, 3, 4, 32, 32)
    with torch.no_grad():
        expected = network(clip)
        network.compile()
        torch.testing.assert_close(network(clip), expected, rtol=1e-4, atol=1e-5)


def classifier(**changes):
    network = build_network(SMALL.network, num_classes=3, in_channels=3)
    options = with_train(SMALL, **changes).train
    return StreamClassifier(network, stream="rgb", normalisation=PIXELS, options=options, total_steps=10)


def test_frozen_statistics_do_not_move_while_weights_do(workspace):
    checkpoint, _ = fit("rgb", workspace, with_train(SMALL, freeze_norm=True))
    moved = {name: v for name, v in checkpoint.weights.items() if name.endswith("running_mean")}
    assert moved
    assert all(not v.any() for v in moved.values())
    module = classifier(freeze_norm=True).train()
    assert not any(m.training for m in module.modules() if isinstance(m, torch.nn.BatchNorm3d))


def test_weight_decay_spares_normalisation_and_biases_where_it_is_told_to():
    module = classifier(decay="weights", weight_decay=0.1)
    decayed, spared = module.configure_optimizers()["optimizer"].param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    names = {id(p): name for name, p in module.network.named_parameters()}
    spared_names = {names[id(p)] for p in spared["params"]}
    assert spared_names == {
        name
        for name, m in [
            (f"{n}.{p}", m) for n, m in module.network.named_modules() for p in ("weight", "bias")
        ]
        if name in names.values() and (name.endswith("bias") or isinstance(m, torch.nn.BatchNorm3d))
    }
    assert len(decayed["params"]) + len(spared_names) == len(names)


def test_the_learning_rate_grows_with_the_batch():
    assert (
        with_train(SMALL, learning_rate=0.1, batch_size=512, learning_rate_batch=256).train.peak_rate == 0.2
    )
    assert with_train(SMALL, learning_rate=0.1, batch_size=512).train.peak_rate == 0.1
    sgd = classifier(learning_rate=0.1, learning_rate_batch=2, warmup_steps=0).configure_optimizers()[
        "optimizer"
    ]
    assert sgd.param_groups[0]["initial_lr"] == 0.2


def test_training_starts_from_a_2d_network_and_its_file_is_part_of_the_key(workspace, tmp_path):
    flat = ResNet((1, 1, 1, 1), width=8)
    path = tmp_path / "2d.pth"
    torch.save(flat.state_dict(), path)
    network = replace(SMALL.network, width=0.125, stem_kernel=(3, 7, 7), inflate_from=str(path))
    options = with_train(replace(SMALL, network=network), steps=1, learning_rate=1e-9, weight_decay=0.0)
    checkpoint, lines = fit("rgb", workspace, options)
    assert "tensors inflated, 2 not used (fc)" in lines[1]
    assert json.loads((workspace / "runs" / "rgb" / "inflation.json").read_text())["left_over"] == [
        "fc.weight",
        "fc.bias",
    ]
    found = checkpoint.weights["stem.0.weight"]
    torch.testing.assert_close(found, (flat.conv1.weight[:, :, None] / 3).expand_as(found))
    assert checkpoint.normalisation == IMAGENET
    assert checkpoint.network.inflate_from is None
    moved = path.rename(tmp_path / "moved.pth")
    elsewhere = replace(options, network=replace(network, inflate_from=str(moved)))
    assert reason("rgb", workspace, elsewhere) is None
    torch.save(ResNet((1, 1, 1, 1), width=8).state_dict(), moved)
    assert reason("rgb", workspace, elsewhere).startswith("network.inflate_from: was ")
    with pytest.raises(ValueError, match=r"^network.inflate_from: .*2d.pth does not exist"):
        reason("rgb", workspace, options)


def test_training_starts_from_another_run(trained, workspace):
    start = trained / "runs" / "student" / "checkpoints" / "final.pt"
    network = replace(SMALL.network, start_from=str(start))
    options = with_train(replace(SMALL, network=network), steps=1, learning_rate=1e-9, weight_decay=0.0)
    checkpoint, _ = fit("rgb", workspace, options)
    before = load_checkpoint(str(start))
    torch.testing.assert_close(
        checkpoint.weights["res5.0.reduce.0.weight"], before.weights["res5.0.reduce.0.weight"]
    )
    assert not torch.allclose(checkpoint.weights["classifier.weight"], before.weights["classifier.weight"])


def test_what_cannot_be_trained_here_is_refused(workspace):
    with pytest.raises(ValueError, match=r"train.batch_size: found 4, expected a multiple of 3 "):
        fit("rgb", workspace, with_train(SMALL, accumulate=3))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"train.sync_norm: found True, but this machine has no GPU"):
            fit("rgb", workspace, with_train(SMALL, sync_norm=True))


def test_a_student_of_another_backbone_learns_from_the_teachers(copy):
    options = replace(SMALL, network=NetworkOptions("s3dg", width=0.1, blocks=(1, 1, 1)))
    checkpoint, _ = fit("student", copy, options)
    assert checkpoint.network.backbone == "s3dg"
    rows = list(csv.DictReader((copy / "runs" / "student" / "metrics.csv").open()))
    expected = {"train/pose", "train/flow", "train/agreement_pose", "train/agreement_flow", "train/label"}
    assert expected <= {row["metric"] for row in rows}


def test_an_evaluation_that_never_was(trained):
    assert evaluation_stale_reason("flow", workspace=str(trained), options=SMALL) == "never evaluated"
