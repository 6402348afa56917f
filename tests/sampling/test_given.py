"""Kept pixels stay as they are but for a seam, and pasting twice changes nothing."""

import torch

from dalle_mini_impl.sampling.given import paste_kept


def images(seed):
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_kept_cells_have_the_original_pixels_but_for_the_seam():
    sampled, original = images(0), (images(1)[0] * 255).round() / 255
    kept = torch.zeros(4, 4, dtype=torch.bool)
    kept[:2] = True
    pasted = paste_kept(sampled, original, kept, seam=2)
    assert torch.equal(pasted[:, :, :6], original[None, :, :6].expand(2, -1, -1, -1))
    assert torch.equal(pasted[:, :, 8:], sampled[:, :, 8:])
    for row, share in ((6, 2 / 3), (7, 1 / 3)):
        blended = torch.lerp(sampled[:, :, row], original[:, row].expand(2, -1, -1), share)
        torch.testing.assert_close(pasted[:, :, row], blended, atol=0.51 / 255, rtol=0)


def test_a_hole_has_a_seam_all_around():
    kept = torch.ones(4, 4, dtype=torch.bool)
    kept[1, 1] = False
    pasted = paste_kept(torch.zeros(1, 3, 16, 16), torch.ones(3, 16, 16), kept, seam=1)[0, 0]
    assert torch.equal(pasted[4:8, 4:8], torch.zeros(4, 4))
    edge = torch.ones(6, 6, dtype=torch.bool)
    edge[1:5, 1:5] = False
    assert set(pasted[3:9, 3:9][edge].tolist()) == {float(torch.tensor(128 / 255))}
    assert pasted.sum() == 16 * 16 - 16 - 20 * (1 - pasted[3, 3])


def test_pasting_from_its_own_result_changes_nothing():
    sampled, original = images(0), images(1)[0]
    kept = torch.rand(4, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    pasted = paste_kept(sampled, original, kept, seam=2)
    assert torch.equal(paste_kept(sampled[:1], pasted[0], kept, seam=0), pasted[:1])
