"""TextToImage: a trained run as one object that samples, completes, inpaints and ranks images.

`sample` yields tensors; strings and PIL images appear only in what goes in and in `Result`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
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
from dalle_mini_impl.sampling.caption_ranking import CaptionRanking, RankedCaption, rank_captions
from dalle_mini_impl.sampling.caption_sampler import SampledCaption, sample_captions
from dalle_mini_impl.sampling.draw import SamplingConfig
from dalle_mini_impl.sampling.sampler import CodeSampler
from dalle_mini_impl.sampling.samples import Samples


@dataclass(frozen=True)
class Result:
    """One sampled image with its seed and scores."""

    image: Image.Image
    caption: str
    seed: int
    """The image's own seed: with the same caption it gives the same image, in fp32 in any batch."""
    clip_score: float | None
    """Cosine similarity of image and caption in [-1, 1]; None where the run has no CLIP."""
    log_likelihood: float
    """ln p(codes | caption), in nats."""
    log_likelihood_ratio: float
    """ln p(codes | caption) - ln p(codes | null caption), in nats."""
    codes: tuple[int, ...]


class TextToImage:
    """Samples images from captions with the models of one run."""

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
        self.code_sampler = CodeSampler(self.dalle)
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
        samples = next(self.sample([caption], [seed], config, given))
        return _results(samples, samples.order(config.rank_by)[: config.num_images])

    def complete(
        self, image: Image.Image, caption: str, keep_rows: int, **settings: Any
    ) -> list[Result]:
        """Keep the first `keep_rows` rows of the image's code grid and sample the rest."""
        return self(caption, given=self.given_by_rows(image, keep_rows), **settings)

    def inpaint(
        self, image: Image.Image, mask: Image.Image, caption: str, **settings: Any
    ) -> list[Result]:
        """Sample the codes whose patches the mask touches with white; keep the others.

        The mask has the image's size and is cropped with it; its smallest stroke counts.
        """
        return self(caption, given=self.given_by_mask(image, mask), **settings)

    @torch.no_grad()
    def sample(
        self,
        captions: Sequence[str],
        seeds: Sequence[int],
        config: SamplingConfig,
        given: Int[Tensor, "n"] | None = None,
    ) -> Iterator[Samples]:
        """The `config.candidates` candidates of each caption.

        seeds: the seed of each caption's first candidate; candidate i has seed + i. As many
        captions are sampled together as fit into `config.batch_size`. given: as for `__call__`.
        """
        count = config.candidates
        together = max(1, config.batch_size // count)
        for start in range(0, len(captions), together):
            texts = captions[start : start + together]
            first_seeds = seeds[start : start + together]
            ids = torch.from_numpy(self.captions.encode(texts)).to(self.device)
            batches = []
            # Candidates of one caption are split where they alone exceed the batch.
            for begin in range(0, count, config.batch_size):
                offsets = range(begin, min(begin + config.batch_size, count))
                own = [first + offset for first in first_seeds for offset in offsets]
                batches.append(self._sample_batch(ids, own, config, given))
            for row, (caption, first) in enumerate(zip(texts, first_seeds, strict=True)):
                fields = {name: torch.cat([b[name][row] for b in batches]) for name in batches[0]}
                yield Samples(caption, tuple(range(first, first + count)), **fields)

    def _sample_batch(
        self,
        ids: Int[Tensor, "c t"],
        seeds: Sequence[int],
        config: SamplingConfig,
        given: Int[Tensor, "n"] | None,
    ) -> dict[str, Tensor]:
        """Images of equally many seeds for each caption: the tensors of `Samples`, `c k ...`."""
        codes = self.code_sampler(ids, seeds, config, given)
        pixels = self.image_tokenizer.decode(codes)
        each = len(seeds) // len(ids)
        rows = ids.repeat_interleave(each, dim=0)
        likelihoods = self.dalle.log_likelihood(rows, codes).sum(dim=1)
        null = self.dalle.log_likelihood(torch.zeros_like(rows), codes).sum(dim=1)
        fields = {
            "pixels": pixels,
            "codes": codes,
            "log_likelihoods": likelihoods,
            "log_likelihood_ratios": likelihoods - null,
        }
        if self.clip is not None:
            texts = self.clip.encode_text(ids).repeat_interleave(each, dim=0)
            fields["clip_scores"] = (self.clip.encode_image(pixels) * texts).sum(dim=-1)
        return {name: value.unflatten(0, (len(ids), each)) for name, value in fields.items()}

    def given_by_rows(self, image: Image.Image, keep_rows: int) -> Int[Tensor, "n"]:
        """The image's codes with all but the first `keep_rows` rows free, as for completion."""
        grid = self.image_tokenizer.grid
        if not 0 < keep_rows < grid:
            raise ValueError(
                f"keep_rows is {keep_rows}: the code grid has {grid} rows, keep 1 to {grid - 1}"
            )
        given = self.encode(image)
        given[keep_rows * grid :] = -1
        return given

    def given_by_mask(self, image: Image.Image, mask: Image.Image) -> Int[Tensor, "n"]:
        """The image's codes with those free that the mask touches, as for inpainting."""
        if mask.size != image.size:
            raise ValueError(
                f"the mask has {mask.size[0]}×{mask.size[1]} pixels and the image "
                f"{image.size[0]}×{image.size[1]}: give a mask of the image's size"
            )
        touched = touched_cells(mask, self.image_tokenizer.grid).reshape(-1)
        if not touched.any():
            raise ValueError(
                "the mask is black in the whole square that is kept after cropping: make white "
                "what is to be sampled again"
            )
        given = self.encode(image)
        given[torch.from_numpy(touched).to(given.device)] = -1
        return given

    def encode(self, image: Image.Image) -> Int[Tensor, "n"]:
        """An image's codes, after the same resize and crop as in training."""
        pixels = to_tensor([image], self.image_tokenizer.image_size).to(self.device)
        return self.image_tokenizer.encode(pixels)[0]

    @torch.no_grad()
    def continue_text(
        self, prompt: str, count: int = 4, seed: int = 0, temperature: float = 1.0, top_k: int = 0
    ) -> list[SampledCaption]:
        """`count` captions that begin with `prompt`, continued by the transformer.

        Caption i is sampled with seed + i. Settings and errors: `sample_captions`.
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
        self, image: Image.Image, captions: Sequence[str], rank_by: CaptionRanking = "likelihood"
    ) -> list[RankedCaption]:
        """The captions, best first, by how well they explain the image (see `rank_captions`)."""
        pixels = to_tensor([image], self.image_tokenizer.image_size).to(self.device)
        ids = torch.from_numpy(self.captions.encode(captions)).to(self.device)
        codes = self.image_tokenizer.encode(pixels)
        return rank_captions(captions, ids, codes, self.dalle, pixels, self.clip, rank_by)


def _results(samples: Samples, order: Sequence[int]) -> list[Result]:
    """The images at `order` with their scores."""
    images = to_images(samples.pixels[list(order)])
    scores = samples.clip_scores
    return [
        Result(
            image,
            samples.caption,
            samples.seeds[at],
            None if scores is None else float(scores[at]),
            float(samples.log_likelihoods[at]),
            float(samples.log_likelihood_ratios[at]),
            tuple(samples.codes[at].tolist()),
        )
        for image, at in zip(images, order, strict=True)
    ]
