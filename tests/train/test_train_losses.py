"""The objectives are what the papers say, and stay finite where floats run out."""

import math

import pytest
import torch
from torch.nn import functional as F

from sayso.train.losses import AAMSoftmax, AngularPrototypical, TeacherLoss


def aam(speakers: int = 5, dim: int = 8, scale: float = 30.0, seed: int = 0) -> AAMSoftmax:
    torch.manual_seed(seed)
    return AAMSoftmax(dim, speakers, scale)


def cosines(loss: AAMSoftmax, embedding: torch.Tensor) -> torch.Tensor:
    return F.normalize(embedding) @ F.normalize(loss.weight).T


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5])
def test_gradients_are_finite_at_cosine_one_and_beyond(margin: float) -> None:
    loss = aam(speakers=2_000, dim=64)
    embedding = (3 * loss.weight.detach()).requires_grad_()
    aligned = torch.linalg.vecdot(F.normalize(embedding), F.normalize(loss.weight))
    assert aligned.max() > 1.0  # rounding goes past one for some
    loss(embedding, torch.arange(2_000), margin).backward()
    assert torch.isfinite(embedding.grad).all()
    assert torch.isfinite(loss.weight.grad).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_at_exactly_plus_and_minus_one(sign: float) -> None:
    loss = aam(speakers=3, dim=3)
    loss.weight.data = torch.eye(3)
    embedding = (sign * torch.eye(3)).requires_grad_()
    value = loss(embedding, torch.arange(3), 0.2)
    value.backward()
    assert math.isfinite(value.item())
    assert torch.isfinite(embedding.grad).all()
    assert torch.isfinite(loss.weight.grad).all()


def test_without_a_margin_it_is_a_scaled_softmax() -> None:
    loss, embedding, speaker = aam(), torch.randn(16, 8), torch.randint(5, (16,))
    expected = F.cross_entropy(30.0 * cosines(loss, embedding), speaker)
    torch.testing.assert_close(loss(embedding, speaker, 0.0), expected)


def test_the_margin_is_added_to_the_targets_angle() -> None:
    loss, embedding, speaker = aam(scale=12.0), torch.randn(16, 8), torch.randint(5, (16,))
    angle = torch.acos(cosines(loss, embedding))
    assert angle.max() < math.pi - 0.3
    logits = torch.cos(angle + 0.3 * F.one_hot(speaker, 5))
    expected = F.cross_entropy(12.0 * logits, speaker)
    torch.testing.assert_close(loss(embedding, speaker, 0.3), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
def test_nearer_is_never_worse(margin: float) -> None:
    """Also past pi minus the margin, where the shifted cosine would rise again."""
    loss = aam(speakers=2, dim=3)
    loss.weight.data = torch.eye(3)[:2]
    angles = torch.linspace(0, math.pi, 400)
    on_circle = torch.stack([torch.cos(angles), torch.zeros(400), torch.sin(angles)], dim=1)
    values = torch.stack([loss(e[None], torch.tensor([0]), margin) for e in on_circle])
    assert (values.diff() >= -1e-6).all()


def test_a_larger_margin_is_harder() -> None:
    loss, embedding, speaker = aam(), torch.randn(16, 8), torch.randint(5, (16,))
    values = [loss(embedding, speaker, margin).item() for margin in (0.0, 0.1, 0.2, 0.3)]
    assert values == sorted(values)
    assert len(set(values)) == 4


def test_length_and_precision_of_embeddings_do_not_matter() -> None:
    loss, embedding, speaker = aam(), torch.randn(16, 8).bfloat16(), torch.randint(5, (16,))
    value = loss(embedding, speaker, 0.2)
    assert value.dtype == torch.float32
    torch.testing.assert_close(loss(embedding.float() * 7, speaker, 0.2), value)


def test_a_zero_embedding_has_a_finite_loss() -> None:
    embedding = torch.zeros(1, 8, requires_grad=True)
    aam()(embedding, torch.tensor([1]), 0.2).backward()
    assert torch.isfinite(embedding.grad).all()


def test_the_teachers_loss_is_one_minus_the_cosine() -> None:
    torch.manual_seed(0)
    loss = TeacherLoss(8, 6)
    embedding, teacher = torch.randn(4, 8), torch.randn(4, 6)
    projected = F.normalize(loss.projection(embedding))
    expected = 1 - (projected * F.normalize(teacher)).sum(dim=1).mean()
    torch.testing.assert_close(loss(embedding, teacher), expected)
    torch.testing.assert_close(loss(embedding, 5 * loss.projection(embedding)), torch.tensor(0.0))
    assert loss(embedding.bfloat16(), teacher).dtype == torch.float32


def test_crops_without_a_target_do_not_count() -> None:
    torch.manual_seed(0)
    loss, embedding, teacher = TeacherLoss(8, 4), torch.randn(6, 8), torch.randn(6, 4)
    teacher[[1, 4]] = 0.0
    known = [0, 2, 3, 5]
    torch.testing.assert_close(loss(embedding, teacher), loss(embedding[known], teacher[known]))
    silent = embedding.clone().requires_grad_()
    loss(silent, torch.zeros(6, 4)).backward()
    assert torch.isfinite(silent.grad).all()


def test_prototypes_are_the_papers() -> None:
    """Of N speakers with two crops, one is the query and the other the prototype."""
    torch.manual_seed(0)
    loss, embedding = AngularPrototypical(), torch.randn(10, 8)
    query, prototype = F.normalize(embedding[0::2]), F.normalize(embedding[1::2])
    logits = 10.0 * query @ prototype.T - 5.0
    torch.testing.assert_close(loss(embedding), F.cross_entropy(logits, torch.arange(5)))
    alike = F.normalize(torch.randn(5, 8)).repeat_interleave(2, dim=0)
    assert loss(alike) < loss(embedding)


def test_the_prototypes_scale_stays_positive() -> None:
    loss = AngularPrototypical()
    loss.weight.data.fill_(-3.0)
    assert loss(torch.randn(8, 4)).item() == pytest.approx(math.log(4), abs=1e-4)


def test_a_floor_of_zero_is_the_published_loss_with_its_nan() -> None:
    """What the clamp is for: the same batch, the same weights."""
    embedding = torch.eye(3).requires_grad_()
    for floor, finite in ((1e-7, True), (0.0, False)):
        loss = AAMSoftmax(3, 3, 30.0, sine_floor=floor)
        loss.weight.data = torch.eye(3)
        embedding.grad = None
        loss(embedding, torch.arange(3), 0.2).backward()
        assert torch.isfinite(embedding.grad).all() == finite
