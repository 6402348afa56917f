"""Cutouts: crops, flips and perspective as projective maps, differentiable."""

import pytest
import torch

from dalle_mini_impl.vqgan_clip.cutouts import (
    CORNERS,
    CutoutsConfig,
    make_cutouts,
    projective_maps,
    random_cutouts,
    warp,
)
from tests.vqgan_clip.toy import STILL, seeded


def test_a_cutout_without_changes_is_the_image():
    images = torch.rand(2, 3, 8, 8, generator=seeded())
    cutouts = random_cutouts(STILL, seeded())
    torch.testing.assert_close(make_cutouts(images, cutouts, 8), images, atol=1e-5, rtol=1e-5)


def test_projective_maps_take_corners_to_corners():
    corners = torch.tensor(CORNERS)[None] * 0.5 + 0.2 * torch.rand(5, 4, 2, generator=seeded())
    maps = projective_maps(corners)
    points = torch.cat((torch.tensor(CORNERS), torch.ones(4, 1)), dim=1)
    mapped = torch.einsum("nij,pj->npi", maps, points)
    torch.testing.assert_close(mapped[..., :2] / mapped[..., 2:], corners, atol=1e-5, rtol=1e-5)


def test_crops_stay_inside_and_flips_mirror():
    crops = CutoutsConfig(count=50, whole=0.4, smallest=0.5, perspective=0.0, color=0, noise=0)
    cutouts = random_cutouts(crops, seeded())
    corners = torch.einsum("nij,pj->npi", cutouts.maps, torch.tensor([[*c, 1.0] for c in CORNERS]))
    assert corners[..., :2].abs().max() <= 1 + 1e-5
    sides = (corners[:, 1, 0] - corners[:, 0, 0]) / 2
    assert (sides[:20] - 1).abs().max() < 1e-5
    assert 0.5 <= sides[20:].min() < sides[20:].max() < 1

    images = torch.rand(1, 3, 8, 8, generator=seeded())
    flips = STILL.model_copy(update={"count": 20, "flip": True})
    shown = make_cutouts(images, random_cutouts(flips, seeded()), 8)
    mirrored = [torch.allclose(view, images[0].flip(-1), atol=1e-5) for view in shown]
    straight = [torch.allclose(view, images[0], atol=1e-5) for view in shown]
    assert all(a != b for a, b in zip(mirrored, straight, strict=True))
    assert 0 < sum(mirrored) < 20


def test_every_augmentation_changes_cutouts_and_passes_the_gradient():
    images = torch.rand(2, 3, 16, 16, generator=seeded(), requires_grad=True)
    for change in ({"whole": 0.0}, {"perspective": 0.1}, {"color": 0.2}, {"noise": 0.1}):
        config = STILL.model_copy(update={"count": 3, **change})
        shown = make_cutouts(images, random_cutouts(config, seeded()), 16)
        assert shown.shape == (6, 3, 16, 16)
        assert not torch.allclose(shown[:2], images, atol=1e-3), change
        assert not torch.allclose(shown[:2], shown[2:4], atol=1e-3), change
        (gradient,) = torch.autograd.grad(shown.sum(), images)
        assert gradient.abs().sum() > 0


def test_large_images_are_averaged_and_not_sampled_sparsely():
    images = torch.zeros(1, 3, 32, 32)
    images[..., ::2] = 1
    shown = make_cutouts(images, random_cutouts(STILL, seeded()), 8)
    torch.testing.assert_close(shown, torch.full_like(shown, 0.5), atol=1e-5, rtol=0)


def test_zoom_and_pan_move_the_image():
    images = torch.zeros(1, 1, 8, 8)
    images[..., 3:5, 3:5] = 1
    zoomed = warp(images, torch.diag(torch.tensor([0.5, 0.5, 1.0]))[None], 8)
    assert zoomed.sum() == pytest.approx(4 * float(images.sum()), rel=0.3)
    moved = warp(images, torch.tensor([[[1.0, 0, 0.5], [0, 1, 0], [0, 0, 1]]]), 8)
    torch.testing.assert_close(moved, images.roll(-2, -1))
