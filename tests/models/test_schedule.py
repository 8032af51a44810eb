from itertools import pairwise

import pytest

from models.schedule import rate_factor


def factors(total, warmup):
    return [rate_factor(step, total_steps=total, warmup_steps=warmup) for step in range(total)]


def test_the_papers_schedule_at_known_steps():
    at = {step: rate_factor(step, total_steps=22_000, warmup_steps=2_000) for step in (0, 999, 2000, 12_000)}
    assert at == pytest.approx({0: 0, 999: 0.5, 2000: 1, 12_000: 0.5}, abs=1e-3)


def test_it_rises_evenly_then_falls():
    found = factors(50, 10)
    rises = [b - a for a, b in pairwise(found[:10])]
    assert rises == pytest.approx([rises[0]] * len(rises))
    assert max(found) == found[10] == 1
    assert all(a > b > 0 for a, b in pairwise(found[10:]))


def test_no_warmup_starts_at_the_peak():
    assert factors(5, 0)[0] == 1


def test_a_warmup_longer_than_the_training_takes_half_of_it():
    assert factors(10, 2000) == factors(10, 5)


def test_one_step():
    assert factors(1, 2000) == [1]
