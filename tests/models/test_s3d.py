import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.gates import FeatureGate
from models.s3d import PAPER_MIXED, S3DG, Mixed, SamePool


def paper_network(**changes) -> S3DG:
    with torch.device("meta"):
        return S3DG(600, **changes)


def small_network(**changes) -> S3DG:
    torch.manual_seed(0)
    return S3DG(5, **{"width": 0.1, "blocks": (1, 1, 1)} | changes)


def giga_multiply_adds(network: nn.Module, *shape: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(shape, device="meta"))
    return counter.get_total_flops() / 2e9


def test_full_size_has_9_73_million_parameters_aside_from_the_biases_of_gates():
    parameters = dict(paper_network().named_parameters())
    counted = sum(p.numel() for name, p in parameters.items() if not name.endswith("project.bias"))
    assert counted / 1e6 == pytest.approx(9.73, abs=0.005)


def test_full_size_costs_what_the_reference_costs():
    assert giga_multiply_adds(paper_network(), 1, 3, 64, 224, 224) == pytest.approx(64.2, rel=5e-3)
    assert giga_multiply_adds(paper_network(), 1, 3, 250, 256, 256) == pytest.approx(328, rel=5e-3)


def test_layer_shapes_are_those_of_the_reference():
    network, shapes = paper_network(), {}
    names = ["conv_1a", "pool_2a", "conv_2b", "conv_2c", "pool_3a", "pool_4a", "pool_5a"]
    names += [f"mixed_{number}.{name}" for number, group in enumerate(PAPER_MIXED, 3) for name in group]
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: shapes.__setitem__(name, tuple(output.shape[1:]))
        )
    assert network(torch.empty(2, 3, 64, 224, 224, device="meta")).shape == (2, 600)
    assert shapes == {
        "conv_1a": (64, 32, 112, 112),
        "pool_2a": (64, 32, 56, 56),
        "conv_2b": (64, 32, 56, 56),
        "conv_2c": (192, 32, 56, 56),
        "pool_3a": (192, 32, 28, 28),
        "mixed_3.3b": (256, 32, 28, 28),
        "mixed_3.3c": (480, 32, 28, 28),
        "pool_4a": (480, 16, 14, 14),
        "mixed_4.4b": (512, 16, 14, 14),
        "mixed_4.4c": (512, 16, 14, 14),
        "mixed_4.4d": (512, 16, 14, 14),
        "mixed_4.4e": (528, 16, 14, 14),
        "mixed_4.4f": (832, 16, 14, 14),
        "pool_5a": (832, 8, 7, 7),
        "mixed_5.5b": (832, 8, 7, 7),
        "mixed_5.5c": (1024, 8, 7, 7),
    }


@pytest.mark.parametrize(
    "shape", [(1, 3, 1, 32, 32), (2, 3, 5, 48, 80), (1, 3, 9, 33, 47), (1, 3, 4, 16, 16)]
)
def test_any_length_and_size_of_clip(shape):
    assert small_network().eval()(torch.zeros(shape)).shape == (shape[0], 5)


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (3, 1)])
def test_pooling_pads_as_tensorflow_does(size, kernel, stride):
    """Padding "SAME": ceil(size / stride) places; of the padding, the smaller half comes before."""
    x = torch.rand(1, 2, size, size, size)
    places = -(-size // stride)
    total = max(0, (places - 1) * stride + kernel - size)
    around = (total // 2, total - total // 2)
    expected = F.max_pool3d(F.pad(x, around * 3, value=-1.0), kernel, stride)
    assert torch.equal(SamePool((kernel,) * 3, (stride,) * 3)(x), expected)
    assert expected.shape[2] == places


@pytest.mark.parametrize(("gate", "expected"), [("none", 0), ("block", 4), ("cell", 1 + 9 * 4)])
def test_gates_stand_where_the_option_says(gate, expected):
    assert sum(isinstance(m, FeatureGate) for m in paper_network(gate=gate).modules()) == expected


def test_each_branch_of_a_block_is_gated_before_they_are_joined():
    torch.manual_seed(0)
    mixed = Mixed(4, (4, 4, 8, 4, 4, 4), gated=True, momentum=0.1).eval()
    x = torch.rand(2, 4, 3, 5, 5)
    branches = [branch(x) for branch in (mixed.branch1, mixed.branch2, mixed.branch3, mixed.branch4)]
    gated = [gate(branch) for gate, branch in zip(mixed.gates, branches, strict=True)]
    assert [g.shape[1] for g in gated] == [4, 8, 4, 4]
    torch.testing.assert_close(mixed(x), torch.cat(gated, dim=1))


def test_temporal_convolutions_start_as_the_identity():
    network = small_network().eval()
    temporal, relu = network.conv_2c[3:]
    x = torch.rand(1, temporal.in_channels, 4, 3, 3)
    assert torch.equal(relu(temporal(x)), x)


def test_the_logits_average_neighbouring_places_then_all_of_them():
    network = small_network(dropout=0.0).eval()
    nn.init.normal_(network.classifier.weight)
    clip = torch.randn(1, 3, 24, 32, 32)
    pooled_TC = network.features(clip).mean(dim=(3, 4))[0].T
    assert len(pooled_TC) == 3
    naive = sum(network.classifier((pooled_TC[t] + pooled_TC[t + 1]) / 2) for t in range(2)) / 2
    torch.testing.assert_close(network(clip)[0], naive)


def test_width_and_depth_shrink_the_network():
    network = small_network(width=0.25, blocks=(1, 2, 1), in_channels=2).eval()
    assert network.conv_1a[0].weight.shape == (16, 2, 3, 7, 7)
    assert [len(network.get_submodule(f"mixed_{i}")) for i in (3, 4, 5)] == [1, 2, 1]
    assert network.features(torch.zeros(1, 2, 8, 32, 32)).shape == (1, 208, 1, 1, 1)
