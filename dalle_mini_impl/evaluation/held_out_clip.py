"""A run's CLIP on held-out images and captions: what it has learned, and how well it matches."""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.evaluation.held_out import HeldOut
from dalle_mini_impl.evaluation.measures.agreement import (
    above_median,
    measure_calibration,
    measure_hard_negatives,
    measure_retrieval,
)
from dalle_mini_impl.evaluation.measures.features import clip_features
from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
from dalle_mini_impl.evaluation.report.page import ReportPart
from dalle_mini_impl.kernels.chunks import in_chunks
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import frozen, load_clip


class HeldOutClip:
    """The CLIP with the vectors of the held-out images and captions."""

    def __init__(self, run: RunFolder, held_out: HeldOut, device: torch.device) -> None:
        self.run, self.held_out, self.device = run, held_out, device
        self.vocabulary = run.captions()
        self.clip = frozen(load_clip(run, self.vocabulary), device)
        self.features = clip_features(self.clip, device)

    @cached_property
    def images(self) -> Float[Tensor, "n e"]:
        """A vector for each held-out image."""
        return self.features(self.held_out.images)

    @cached_property
    def texts(self) -> Float[Tensor, "n e"]:
        """A vector for the caption of each held-out image."""
        return self.encode(self.held_out.captions)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "n e"]:
        """A vector for each text, on the CPU."""
        ids = torch.from_numpy(self.vocabulary.encode(texts))
        return in_chunks(lambda part: self.clip.encode_text(part.to(self.device)).cpu(), ids)

    def why_no_measure(self) -> str:
        """Why images cannot be compared by its features; "" for a CLIP that matches captions."""
        right = above_median(self.images, self.texts, self.held_out.same)
        n = len(self.held_out)
        if wilson_interval(right, n)[0] > 0.5:
            return ""
        return (
            f"The run's CLIP cannot distinguish captions: it prefers an image's own caption to "
            f"the median of the others for {right:,} of {counted(n, 'image')}, and half of them "
            "is chance. Its features are no measure; pixels take their place. Train the CLIP "
            "longer, or name other features with --features."
        )

    def parts(self) -> list[ReportPart]:
        """Retrieval, hard negatives and calibration."""
        clip, held_out, images, texts = self.clip, self.held_out, self.images, self.texts
        logits = clip.logit_scale.cpu() * images @ texts.T + clip.bias.cpu()
        parts = [measure_retrieval(images, texts, held_out.same)]
        rows, wrong = held_out.wrong_captions(held_out.seed)
        if rows:
            parts.append(measure_hard_negatives(images[rows], texts[rows], self.encode(wrong)))
        config = self.run.experiment.clip
        batch = config.training.batch_size
        return [*parts, measure_calibration(logits, held_out.same, batch, config.loss)]
