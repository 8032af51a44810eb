import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.gates import FeatureGate
from models.r3d import R3D50G, Cell


def paper_network(**changes) -> R3D50G:
    with torch.device("meta"):
        return R3D50G(600, **changes)


def small_network(**changes) -> R3D50G:
    torch.manual_seed(0)
    return R3D50G(5, **{"width": 0.1, "blocks": (1, 1, 1, 1)} | changes)


def test_full_size_has_34_03_million_parameters():
    assert sum(p.numel() for p in paper_network().parameters()) / 1e6 == pytest.approx(34.03, abs=0.005)
    without = sum(p.numel() for p in paper_network(gate="none").parameters()) / 1e6
    assert without == pytest.approx(28.45, abs=0.005)


def gigaflops(network: nn.Module, *shape: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(shape, device="meta"))
    return counter.get_total_flops() / 1e9


def test_full_size_costs_what_the_paper_states():
    assert gigaflops(paper_network(), 1, 3, 250, 256, 256) == pytest.approx(3665, rel=1e-3)


def test_the_literal_reading_of_table_1_costs_more():
    literal = paper_network(temporal_kernels=((3,), (3, 1), (3, 1), (3, 1)))
    assert gigaflops(literal, 1, 3, 250, 256, 256) == pytest.approx(3800, rel=1e-3)


def test_layer_shapes_are_those_of_table_1():
    network, shapes = paper_network(), {}
    for name in ("stem", "pool", "res2", "res3", "res4", "res5"):
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: shapes.__setitem__(name, tuple(output.shape[1:]))
        )
    logits = network(torch.empty(2, 3, 64, 224, 224, device="meta"))
    assert shapes == {
        "stem": (64, 64, 112, 112),
        "pool": (64, 64, 56, 56),
        "res2": (256, 64, 56, 56),
        "res3": (512, 64, 28, 28),
        "res4": (1024, 64, 14, 14),
        "res5": (2048, 64, 7, 7),
    }
    assert logits.shape == (2, 600)


def test_temporal_kernels_alternate_and_only_space_is_strided():
    network = paper_network()
    lengths = {
        name: [cell.reduce[0].kernel_size[0] for cell in stage if isinstance(cell, Cell)]
        for name, stage in network.named_children()
        if name.startswith("res")
    }
    assert lengths == {
        "res2": [3, 3, 3],
        "res3": [3, 1, 3, 1],
        "res4": [3, 1, 3, 1, 3, 1],
        "res5": [1, 3, 1],
    }
    strides = {m.stride[0] for m in network.modules() if isinstance(m, nn.Conv3d)}
    assert strides == {1}


@pytest.mark.parametrize("shape", [(1, 3, 1, 32, 32), (2, 3, 5, 48, 80), (1, 3, 9, 33, 47)])
def test_any_length_and_size_of_clip(shape):
    assert small_network().eval()(torch.zeros(shape)).shape == (shape[0], 5)


@pytest.mark.parametrize(("gate", "expected"), [("none", 0), ("block", 4), ("cell", 16)])
def test_gates_stand_where_the_option_says(gate, expected):
    network = paper_network(gate=gate)
    assert sum(isinstance(m, FeatureGate) for m in network.modules()) == expected


def test_the_gate_equals_its_formula():
    gate = FeatureGate(3)
    nn.init.normal_(gate.project.weight)
    nn.init.normal_(gate.project.bias)
    x = torch.randn(2, 3, 4, 5, 6)
    found = gate(x)
    for b in range(2):
        for c in range(3):
            pull = gate.project.bias[c] + sum(gate.project.weight[c, k] * x[b, k].mean() for k in range(3))
            torch.testing.assert_close(found[b, c], x[b, c] / (1 + torch.exp(-pull)))


def test_the_ablation_with_temporal_pooling_halves_the_frames_once():
    network = paper_network(temporal_pool=True)
    assert network.features(torch.empty(1, 3, 63, 64, 64, device="meta")).shape == (1, 2048, 32, 2, 2)
    assert network.features(torch.empty(1, 3, 1, 64, 64, device="meta")).shape == (1, 2048, 1, 2, 2)


def test_a_gate_starts_nearly_half_open():
    x = torch.rand(1, 64, 2, 3, 3)
    torch.testing.assert_close(FeatureGate(64)(x), x / 2, rtol=0.1, atol=0.02)


def test_cells_start_as_the_identity_except_those_that_change_the_shape():
    network = small_network(gate="none", blocks=(2, 1, 1, 1)).eval()
    first, second = network.res2
    x = torch.rand(2, first.expand[0].out_channels, 3, 8, 8)
    assert torch.equal(second(x), x)
    x = torch.rand(2, first.reduce[0].in_channels, 3, 8, 8)
    assert not torch.equal(first(x), torch.relu(first.shortcut(x)))


def test_two_channels_for_flow_and_a_narrow_width():
    network = R3D50G(4, 2, width=0.25, blocks=(1, 1, 1, 1))
    assert network.stem[0].weight.shape == (16, 2, 5, 7, 7)
    assert network.classifier.in_features == 512


def test_channels_last_changes_the_layout_and_not_the_logits():
    network = small_network().eval()
    nn.init.normal_(network.classifier.weight)
    clip = torch.randn(2, 3, 4, 32, 32)
    expected = network(clip)
    network = network.to(memory_format=torch.channels_last_3d)
    found = network(clip.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
