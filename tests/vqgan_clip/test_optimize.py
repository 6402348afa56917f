"""The optimization: the score rises, each row keeps its best, proposals compete at their cost."""

import pytest
import torch

from dalle_mini_impl.vqgan_clip.config import OptimizeConfig
from dalle_mini_impl.vqgan_clip.cutouts import CutoutsConfig
from dalle_mini_impl.vqgan_clip.objective import Objective, total_variation
from dalle_mini_impl.vqgan_clip.optimize import Proposals, optimize
from tests.vqgan_clip.toy import QUICK, STILL, decode, redness, seeded, start


def test_the_score_rises_and_its_opposite_does_not():
    before = redness(decode(start()))
    risen = optimize(Objective(decode, redness), start(), QUICK, seeded())
    assert (redness(risen.images) > before + 0.3).all()
    torch.testing.assert_close(risen.scores, redness(risen.images))
    flipped = optimize(Objective(decode, lambda x: -redness(x)), start(), QUICK, seeded())
    assert (redness(flipped.images) < before - 0.3).all()


def test_each_row_keeps_its_own_best_and_never_falls_below_its_start():
    # Far too large steps: the images jump about, the best stays.
    wild = QUICK.model_copy(update={"learning_rate": 50.0, "total_variation": 0.0})

    def narrow(pixels):
        return -(
            pixels.mean(dim=(1, 2, 3)) - torch.tensor([0.5, 0.3]).repeat(len(pixels) // 2)
        ).abs()

    seen = []
    result = optimize(
        Objective(decode, narrow),
        start(2),
        wild,
        seeded(),
        progress=lambda s: seen.append(narrow(s.images)),
    )
    every = torch.stack(seen)
    torch.testing.assert_close(result.scores, every.amax(dim=0))
    assert (result.scores >= every[0]).all()
    torch.testing.assert_close(result.scores, narrow(decode(result.latents)))
    assert torch.equal(result.steps, every.argmax(dim=0))
    torch.testing.assert_close(result.start_scores, every[0])


def test_the_size_of_the_chunks_changes_memory_only():
    def run_with(chunk: int):
        cutouts = CutoutsConfig(count=6, chunk=chunk, flip=True)
        settings = OptimizeConfig(steps=5, cutouts=cutouts)
        return optimize(Objective(decode, redness, size=8), start(2), settings, seeded())

    whole, parts = run_with(6), run_with(1)
    torch.testing.assert_close(parts.latents, whole.latents, atol=1e-4, rtol=1e-4)


def test_the_seed_determines_the_result():
    def run_with(seed: int):
        return optimize(Objective(decode, redness), start(), QUICK, seeded(seed)).latents

    assert torch.equal(run_with(1), run_with(1))
    assert not torch.equal(run_with(1), run_with(2))


def test_an_interruption_returns_the_best_so_far():
    def interrupt(snapshot):
        if snapshot.metrics["step"] == 6:
            raise KeyboardInterrupt

    result = optimize(Objective(decode, redness), start(), QUICK, seeded(), progress=interrupt)
    assert result.interrupted
    assert [record["step"] for record in result.history] == list(range(7))
    assert (result.scores > result.start_scores).all()
    assert not optimize(Objective(decode, redness), start(), QUICK, seeded()).interrupted


def test_the_learning_rate_follows_its_schedule():
    settings = OptimizeConfig(steps=100, learning_rate=0.5, warmup=0.1, cutouts=STILL)
    rates = [
        r["learning_rate"]
        for r in optimize(Objective(decode, redness), start(), settings, seeded()).history
    ]
    assert max(rates) == pytest.approx(0.5)
    assert rates[0] == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.05)
    constant = settings.model_copy(update={"schedule": "constant", "warmup": 0.0, "steps": 3})
    history = optimize(Objective(decode, redness), start(), constant, seeded()).history
    assert [r["learning_rate"] for r in history] == [0.5] * 4


def test_total_variation_smooths():
    def weighed(weight: float):
        settings = OptimizeConfig(steps=40, total_variation=weight, cutouts=STILL)
        return optimize(Objective(decode, lambda x: 0 * redness(x)), start(), settings, seeded())

    rough, smooth = weighed(0.0), weighed(1.0)
    assert total_variation(smooth.images) < 0.6 * total_variation(rough.images)


def test_a_penalty_counts_against_the_score():
    def far(latents):
        return 10 * latents.square().mean(dim=(1, 2, 3))

    free = optimize(Objective(decode, redness), start(), QUICK, seeded())
    penalized = optimize(Objective(decode, redness, penalty=far), start(), QUICK, seeded())
    assert penalized.latents.square().mean() < 0.5 * free.latents.square().mean()
    assert penalized.history[-1]["penalty"] < penalized.history[0]["penalty"]


def test_a_gradient_that_is_not_finite_is_an_error():
    with pytest.raises(FloatingPointError, match="step 0: the gradient"):
        optimize(Objective(decode, lambda x: redness(x) / 0), start(), QUICK, seeded())


def test_the_best_is_chosen_by_fixed_cutouts():
    settings = QUICK.model_copy(update={"held_out": 3, "learning_rate": 1e-9})

    def noisy(pixels):
        return (pixels - pixels.roll(1, dims=-1)).square().mean(dim=(1, 2, 3))

    first = optimize(Objective(decode, noisy), start(2), settings, seeded(1))
    scores = [record["score"] for record in first.history]
    assert scores == pytest.approx([scores[0]] * len(scores), abs=1e-6)
    again = optimize(Objective(decode, noisy), start(2), settings, seeded(2))
    torch.testing.assert_close(again.start_scores, first.start_scores)
    plain = noisy(decode(start(2)))
    assert (first.start_scores - plain).abs().min() > 1e-4


def brighter(latents, progress, generator):
    """Four proposals for each: the same, a much redder one, a less red one, noise."""
    redder = latents + torch.tensor([3.0, -3.0, -3.0]).view(1, 3, 1, 1)
    noise = torch.randn(latents.shape, generator=generator)
    return torch.cat((latents, redder, latents - 1, noise))


def test_the_best_proposal_is_kept_if_its_score_exceeds_its_cost():
    def best(cost):
        return optimize(
            Objective(decode, redness),
            start(2),
            QUICK,
            seeded(),
            proposals=Proposals(brighter, cost),
        )

    free = best(lambda latents: latents.new_zeros(len(latents)))
    torch.testing.assert_close(free.scores, redness(free.images))
    assert (free.scores > 0.9).all()
    # The start is a candidate as well, and here the only one that costs nothing.
    costly = best(lambda latents: 9 * (latents - start(len(latents))[:1]).abs().mean((1, 2, 3)))
    assert torch.equal(costly.latents[0], start(2)[0])
    assert costly.steps[0] == 0
    assert costly.scores[0] == costly.start_scores[0]


def test_proposals_start_late_and_an_interruption_before_them_returns_the_optimized_latents():
    asked = []

    def propose(latents, progress, generator):
        asked.append(progress)
        return latents

    def interrupt(snapshot):
        if snapshot.metrics["step"] == 5:
            raise KeyboardInterrupt

    costly = Proposals(propose, lambda latents: latents.new_full((len(latents),), 1.0))
    settings = QUICK.model_copy(update={"propose_after": 0.5, "propose_every": 4})
    optimize(Objective(decode, redness), start(), settings, seeded(), proposals=costly)
    assert asked == [12 / 20, 16 / 20, 1.0]
    result = optimize(
        Objective(decode, redness),
        start(),
        settings,
        seeded(),
        proposals=costly,
        progress=interrupt,
    )
    assert result.interrupted
    assert (result.scores > result.start_scores).all()
