from dataclasses import replace

import pytest
import torch
from moving_squares import SMALL

from models.checkpoint import Checkpoint, build_network, load_checkpoint
from models.normalisation import FLOW
from models.options import NetworkOptions


@pytest.fixture
def checkpoint():
    torch.manual_seed(0)
    network = build_network(SMALL.network, num_classes=2, in_channels=2)
    labels, frames = ("wave", "bow"), {"fps": 25.0}
    return Checkpoint(
        "flow", "flow", labels, SMALL.network, FLOW, SMALL.evaluate, frames, "key", network.state_dict()
    )


def test_everything_comes_back_from_the_file(checkpoint, tmp_path):
    path = str(tmp_path / "runs" / "final.pt")
    checkpoint.save(path)
    found = load_checkpoint(path)
    assert replace(found, weights={}) == replace(checkpoint, weights={})
    assert all(torch.equal(found.weights[k], v) for k, v in checkpoint.weights.items())
    clip = torch.rand(1, 2, 3, 32, 32)
    assert torch.equal(found.build()(clip), checkpoint.build()(clip))


def test_the_same_content_gives_the_same_bytes(checkpoint, tmp_path):
    for name in ("a.pt", "b.pt"):
        checkpoint.save(str(tmp_path / name))
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_what_is_not_a_checkpoint_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match=r"none.pt does not exist; make it with `perfnet train`"):
        load_checkpoint(str(tmp_path / "none.pt"))
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match=r"text.pt is not a checkpoint of perfnet"):
        load_checkpoint(str(tmp_path / "text.pt"))


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"format": 1, "labels": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil.pt is not a checkpoint"):
        load_checkpoint(str(tmp_path / "evil.pt"))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 9}, "checkpoint format 9, this version reads 1"),
        ({"network": {"backbone": "x3d"}}, "network.backbone: found 'x3d', expected r3d50g or s3dg"),
        ({"stream": None, "labels": None}, "does not fit this version"),
    ],
)
def test_a_checkpoint_of_another_version_or_backbone_is_refused(checkpoint, tmp_path, change, complaint):
    path = tmp_path / "final.pt"
    checkpoint.save(str(path))
    torch.save(torch.load(path, weights_only=True) | change, path)
    with pytest.raises(ValueError, match=complaint):
        load_checkpoint(str(path))


def test_weights_of_another_network_are_refused_in_one_line(checkpoint):
    odd = replace(checkpoint, network=NetworkOptions("s3dg", width=0.1))
    with pytest.raises(
        ValueError, match=r"its network is s3dg, but its weights are those of another network"
    ):
        odd.build()


def test_a_network_starts_from_a_checkpoint_with_everything_but_the_classifier(checkpoint):
    network = build_network(SMALL.network, num_classes=7, in_channels=2)
    before = network.classifier.weight.clone()
    checkpoint.transfer(network, replace(SMALL.network, dropout=0.5, start_from="x.pt"), stream="flow")
    assert torch.equal(network.classifier.weight, before)
    for name, value in checkpoint.weights.items():
        if not name.startswith("classifier"):
            assert torch.equal(network.state_dict()[name], value)


@pytest.mark.parametrize(
    ("options", "stream", "complaint"),
    [
        (NetworkOptions("s3dg"), "flow", "has network.backbone r3d50g, the configuration s3dg"),
        (replace(SMALL.network, width=0.2), "flow", "has network.width 0.1, the configuration 0.2"),
        (SMALL.network, "rgb", "looks at flow, the run to be trained at rgb"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_by_what_differs(checkpoint, options, stream, complaint):
    network = build_network(options, num_classes=2, in_channels=2)
    with pytest.raises(ValueError, match=f"^network.start_from: the checkpoint of run .* {complaint}"):
        checkpoint.transfer(network, options, stream=stream)
