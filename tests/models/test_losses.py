import math

import pytest
import torch

from models.losses import cross_entropy, gradient_ratio, separate_losses, squared_error, unified_loss


def naive_squared_error(student, target, reduction):
    """Plain loops over plain numbers."""
    total = 0.0
    for s_row, t_row in zip(student.tolist(), target.tolist(), strict=True):
        squares = [(s - t) ** 2 for s, t in zip(s_row, t_row, strict=True)]
        total += sum(squares) / len(squares) if reduction == "mean" else sum(squares)
    return total / len(student)


@pytest.fixture
def logits():
    torch.manual_seed(1)
    return torch.randn(3, 7), torch.randn(3, 7), torch.randn(3, 7)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_separate_loss_is_one_squared_error_a_teacher(logits, reduction):
    student, *teachers = logits
    found = separate_losses(student, teachers, reduction=reduction)
    expected = [naive_squared_error(student, teacher, reduction) for teacher in teachers]
    assert [loss.item() for loss in found] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_unified_loss_targets_the_sum_of_the_teachers(logits, reduction):
    student, first, second = logits
    found = unified_loss(student, [first, second], reduction=reduction)
    assert found.item() == pytest.approx(naive_squared_error(student, first + second, reduction), rel=1e-5)


def test_sum_is_mean_times_the_number_of_classes(logits):
    student, teacher, _ = logits
    mean, total = (squared_error(student, teacher, reduction=r) for r in ("mean", "sum"))
    assert total.item() == pytest.approx(7 * mean.item(), rel=1e-5)


def test_cross_entropy_equals_its_formula(logits):
    student, *_ = logits
    classes = [0, 6, 3]
    expected = sum(
        math.log(sum(math.exp(v) for v in row)) - row[c]
        for row, c in zip(student.tolist(), classes, strict=True)
    )
    assert cross_entropy(student, torch.tensor(classes)).item() == pytest.approx(expected / 3, rel=1e-5)


def test_losses_of_half_precision_logits_are_computed_in_float32():
    student = torch.full((1, 4), 300.0, dtype=torch.bfloat16)
    teacher = torch.zeros(1, 4, dtype=torch.bfloat16)
    found = squared_error(student, teacher)
    assert found.dtype == torch.float32
    assert found.item() == 90_000  # 300 is exact in bfloat16, 90,000 is not


def test_the_gradient_ratio_of_a_loss_and_its_triple():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = logits.square().sum()
    assert gradient_ratio(logits, 3 * loss, loss).item() == pytest.approx(3)


def test_teachers_get_no_gradient_from_the_students_loss():
    student = torch.randn(2, 3, requires_grad=True)
    teacher = torch.randn(2, 3)
    separate_losses(student, [teacher])[0].backward()
    assert student.grad is not None
    assert teacher.grad is None
