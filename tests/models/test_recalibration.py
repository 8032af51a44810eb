import torch
from torch import nn

from models.recalibration import recalibrate


def test_statistics_become_the_plain_average_over_the_batches():
    network = nn.Sequential(nn.BatchNorm3d(2, momentum=0.01), nn.Dropout(0.9))
    batches = [torch.randn(4, 2, 3, 3, 3) * scale + scale for scale in (1, 2, 5)]
    recalibrate(network, batches)
    means = torch.stack([b.mean(dim=(0, 2, 3, 4)) for b in batches]).mean(dim=0)
    variances = torch.stack([b.var(dim=(0, 2, 3, 4)) for b in batches]).mean(dim=0)
    torch.testing.assert_close(network[0].running_mean, means)
    torch.testing.assert_close(network[0].running_var, variances)
    assert network[0].momentum == 0.01
    assert not any(m.training for m in network.modules())


def test_weights_stay_as_they_are():
    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2))
    before = {k: v.clone() for k, v in network.named_parameters()}
    recalibrate(network, [torch.randn(2, 1, 2, 2, 2)])
    assert all(torch.equal(v, before[k]) for k, v in network.named_parameters())
