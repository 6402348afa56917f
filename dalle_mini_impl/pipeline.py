"""TextToImage: a trained run as one object that paints, completes, inpaints and ranks.

Strings and PIL images go in and out; between them everything is codes and tensors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.images import to_images, to_tensor, touched_cells
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.precision import best_device
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import frozen, load_clip, load_dalle, load_image_tokenizer
from dalle_mini_impl.sampling.caption_ranking import RankBy, RankedCaption, rank_captions
from dalle_mini_impl.sampling.caption_sampler import SampledCaption, sample_captions
from dalle_mini_impl.sampling.draw import SamplingConfig
from dalle_mini_impl.sampling.sampler import CodeSampler


@dataclass(frozen=True)
class Result:
    """One image with what made it and what was thought of it."""

    image: Image.Image
    caption: str
    seed: int
    """The image's own seed: the same caption and seed paint it again, in fp32 in any batch."""
    clip_score: float | None
    """Cosine similarity of image and caption in [-1, 1]; None where the run has no CLIP."""
    log_likelihood: float
    """ln p(codes | caption), in nats."""
    log_likelihood_ratio: float
    """ln p(codes | caption) - ln p(codes | null caption), in nats."""
    codes: tuple[int, ...]


class TextToImage:
    """Paints images from captions with the models of one run."""

    def __init__(
        self,
        captions: CaptionTokenizer,
        image_tokenizer: ImageTokenizer,
        dalle: Dalle,
        clip: Clip | None,
        sampling: SamplingConfig,
        device: str | torch.device = "cpu",
    ):
        self.device = torch.device(device)
        self.captions = captions
        self.image_tokenizer = frozen(image_tokenizer, self.device)
        self.dalle = frozen(dalle, self.device)
        self.sample_codes = CodeSampler(self.dalle)
        self.clip = clip and frozen(clip, self.device)
        self.sampling = sampling

    @classmethod
    def from_pretrained(
        cls, run: str | Path | RunFolder, device: str | torch.device | None = None
    ) -> "TextToImage":
        """Load a run folder; `device` None takes the GPU where there is one.

        Raises RunError where the run lacks the stages that sampling needs.
        """
        folder = run if isinstance(run, RunFolder) else RunFolder.open(Path(run))
        captions = folder.captions()
        image_tokenizer = load_image_tokenizer(folder)
        return cls(
            captions,
            image_tokenizer,
            load_dalle(folder, captions, image_tokenizer),
            load_clip(folder, captions) if folder.has_weights("clip") else None,
            folder.experiment.sampling,
            device or best_device(),
        )

    def __call__(
        self,
        caption: str,
        seed: int = 0,
        given: Int[Tensor, "n"] | None = None,
        **settings: Any,
    ) -> list[Result]:
        """Images for one caption, best first.

        settings: fields of SamplingConfig that differ from the run's (num_images, candidates,
        guidance, temperature, top_k, top_p, rank_by, …). given: codes to keep, -1 where free.
        """
        config = SamplingConfig(**{**self.sampling.model_dump(), **settings})
        config = config.model_copy(update={"candidates": max(config.candidates, config.num_images)})
        candidates = self.candidates(caption, seed, config, given)
        return rank(candidates, config.rank_by)[: config.num_images]

    def complete(
        self, image: Image.Image, caption: str, keep_rows: int, **settings: Any
    ) -> list[Result]:
        """Keep the first `keep_rows` rows of the image's code grid and paint the rest."""
        grid = self.image_tokenizer.grid
        if not 0 < keep_rows < grid:
            raise ValueError(
                f"keep_rows is {keep_rows}: the code grid has {grid} rows, keep 1 to {grid - 1}"
            )
        given = self.encode(image)
        given[keep_rows * grid :] = -1
        return self(caption, given=given, **settings)

    def inpaint(
        self, image: Image.Image, mask: Image.Image, caption: str, **settings: Any
    ) -> list[Result]:
        """Repaint the codes whose patches the mask touches (white = repaint); keep the others.

        The mask has the image's size and is cropped with it; its smallest stroke counts.
        """
        if mask.size != image.size:
            raise ValueError(
                f"the mask has {mask.size[0]}×{mask.size[1]} pixels and the image "
                f"{image.size[0]}×{image.size[1]}: give a mask of the image's size"
            )
        touched = touched_cells(mask, self.image_tokenizer.grid).reshape(-1)
        if not touched.any():
            raise ValueError(
                "the mask is black wherever the image is kept after cropping to a square: paint "
                "white what is to be repainted"
            )
        given = self.encode(image)
        given[torch.from_numpy(touched).to(given.device)] = -1
        return self(caption, given=given, **settings)

    @torch.inference_mode()
    def continue_text(
        self, prompt: str, count: int = 4, seed: int = 0, temperature: float = 1.0, top_k: int = 0
    ) -> list[SampledCaption]:
        """`count` captions that begin with `prompt`, as the model of captions continues them.

        Caption i is drawn from seed + i. Settings and errors: `sample_captions`.
        """
        return sample_captions(
            self.captions,
            self.dalle.text_logits,
            prompt,
            range(seed, seed + count),
            temperature,
            top_k,
            self.device,
        )

    def rank_captions(
        self, image: Image.Image, captions: Sequence[str], rank_by: RankBy = "likelihood"
    ) -> list[RankedCaption]:
        """The captions, best first, by how well they explain the image; errors: `captioning`."""
        pixels = to_tensor([image], self.image_tokenizer.image_size).to(self.device)
        ids = torch.from_numpy(self.captions.encode(captions)).to(self.device)
        codes = self.image_tokenizer.encode(pixels)
        return rank_captions(captions, ids, codes, self.dalle, pixels, self.clip, rank_by)

    def encode(self, image: Image.Image) -> Int[Tensor, "n"]:
        """An image's codes, after the same resize and crop as in training."""
        pixels = to_tensor([image], self.image_tokenizer.image_size).to(self.device)
        return self.image_tokenizer.encode(pixels)[0]

    def candidates(
        self,
        caption: str,
        seed: int,
        config: SamplingConfig,
        given: Int[Tensor, "n"] | None = None,
    ) -> list[Result]:
        """All candidates of a caption with their scores, in the order of their seeds."""
        return next(self.paint([caption], [seed], config, given))

    @torch.inference_mode()
    def paint(
        self,
        captions: Sequence[str],
        seeds: Sequence[int],
        config: SamplingConfig,
        given: Int[Tensor, "n"] | None = None,
    ) -> Iterator[list[Result]]:
        """For each caption its `config.candidates` candidates, in the order of their seeds.

        seeds: the seed of each caption's first candidate; candidate i has seed + i. Captions are
        painted together as far as `config.batch_size` lets them. given: as for `__call__`.
        """
        count = config.candidates
        together = max(1, config.batch_size // count)
        for start in range(0, len(captions), together):
            texts = captions[start : start + together]
            firsts = seeds[start : start + together]
            ids = torch.from_numpy(self.captions.encode(texts)).to(self.device)
            text_embeddings = None if self.clip is None else self.clip.encode_text(ids)
            # Candidates of one caption are split where they alone exceed the batch.
            results: list[list[Result]] = [[] for _ in texts]
            for begin in range(0, count, config.batch_size):
                some = range(begin, min(begin + config.batch_size, count))
                own = [first + i for first in firsts for i in some]
                codes = self.sample_codes(ids, own, config, given)
                pixels = self.image_tokenizer.decode(codes)
                likelihoods, ratios = self.log_likelihoods(ids, codes)
                scores = self.clip_scores(text_embeddings, pixels)
                for at, image in enumerate(to_images(pixels)):
                    row, of = tuple(codes[at].tolist()), at // len(some)
                    own_scores = scores[at], likelihoods[at], ratios[at]
                    results[of].append(Result(image, texts[of], own[at], *own_scores, row))
            yield from results

    def log_likelihoods(
        self, ids: Int[Tensor, "c t"], codes: Int[Tensor, "b n"]
    ) -> tuple[list[float], list[float]]:
        """ln p(codes | caption) of each row, and less ln p(codes | null caption), in nats.

        The rows are grouped by caption, equally many for each.
        """
        rows = ids.repeat_interleave(len(codes) // len(ids), dim=0)
        own = self.dalle.log_likelihood(rows, codes).sum(dim=1)
        null = self.dalle.log_likelihood(torch.zeros_like(rows), codes).sum(dim=1)
        return own.tolist(), (own - null).tolist()

    def clip_scores(
        self, text_embeddings: Float[Tensor, "c d"] | None, pixels: Float[Tensor, "b 3 h w"]
    ) -> list[float] | list[None]:
        """Cosine similarity of each image with its caption's embedding; none without a CLIP."""
        if self.clip is None or text_embeddings is None:
            return [None] * len(pixels)
        own = text_embeddings.repeat_interleave(len(pixels) // len(text_embeddings), dim=0)
        return (self.clip.encode_image(pixels) * own).sum(-1).tolist()


def rank(candidates: Sequence[Result], rank_by: str) -> list[Result]:
    """Candidates best first by `SamplingConfig.rank_by`; without a CLIP the likelihood serves."""
    if rank_by == "none":
        return list(candidates)
    likelihood = np.array([c.log_likelihood for c in candidates])
    ratio = np.array([c.log_likelihood_ratio for c in candidates])
    clip = np.array([np.nan if c.clip_score is None else c.clip_score for c in candidates])
    if np.isnan(clip).any() and rank_by in ("clip", "both"):
        rank_by = "likelihood"
    both = standardize(clip) + standardize(likelihood)
    score = {"clip": clip, "likelihood": likelihood, "ratio": ratio, "both": both}[rank_by]
    return [candidates[i] for i in np.argsort(-score, kind="stable")]


def standardize(scores: np.ndarray) -> np.ndarray:
    """Zero mean and unit deviation."""
    return (scores - scores.mean()) / (scores.std() + 1e-8)
