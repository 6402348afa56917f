"""TextToImage: a trained run as one object that samples, completes, inpaints and ranks images.

`sample` yields tensors; strings and PIL images appear only in what goes in and in `Result`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor
from typing_extensions import Unpack

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.images import to_tensor
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.pipeline.given_codes import given_by_mask, given_by_rows
from dalle_mini_impl.pipeline.keywords import (
    CallKeywords,
    SamplingKeywords,
    changed_sampling,
    starting_seeds,
)
from dalle_mini_impl.pipeline.previews import Callback, decoding
from dalle_mini_impl.pipeline.recorded_codes import encode_image
from dalle_mini_impl.pipeline.result import Results, results_of
from dalle_mini_impl.pipeline.scores import decode_and_score, score_one_by_one
from dalle_mini_impl.pipeline.selection import select
from dalle_mini_impl.precision import available_device, choose_precision, precision_of
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import frozen, load_models, origin_of, training_codes_of
from dalle_mini_impl.runs.named import find_run
from dalle_mini_impl.sampling.caption_ranking import CaptionRanking, RankedCaption, rank_captions
from dalle_mini_impl.sampling.caption_sampler import SampledCaption, sample_captions
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.given import Given
from dalle_mini_impl.sampling.record import Origin
from dalle_mini_impl.sampling.sampler import CodeSampler, Progress
from dalle_mini_impl.sampling.samples import Samples
from dalle_mini_impl.sampling.training_codes import TrainingCodes


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
        origin: Origin | None = None,
        training_codes: TrainingCodes | None = None,
    ):
        self.device = torch.device(device)
        self.captions = captions
        self.image_tokenizer = frozen(image_tokenizer, self.device)
        self.dalle = frozen(dalle, self.device)
        self.code_sampler = CodeSampler(self.dalle)
        self.clip = clip and frozen(clip, self.device)
        self.sampling = sampling
        self.origin, self.training_codes = origin, training_codes

    @classmethod
    def from_pretrained(
        cls,
        run: str | Path | RunFolder,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> "TextToImage":
        """Load a run folder, an exported zip or a model of the package, such as "shapes".

        device: None takes the GPU where there is one. dtype: torch.float32 or torch.bfloat16, in
        which codes are sampled; None as the run says. Raises RunError where the run lacks the
        stages that sampling needs, ConfigError where the device is not there.
        """
        folder = run if isinstance(run, RunFolder) else find_run(run)
        models, origin = load_models(folder), origin_of(folder)
        model = cls(*models, available_device(device), origin, training_codes_of(folder))
        return model.to(dtype=dtype)

    def to(
        self,
        device: str | torch.device | torch.dtype | None = None,
        dtype: torch.dtype | None = None,
    ) -> "TextToImage":
        """Move the models to a device, choose the dtype that codes are sampled in, or both.

        Only the products of the transformer's blocks are in that dtype, so the weights stay as
        they are. Raises ConfigError for what this machine lacks.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if device is not None:
            self.device = available_device(device)
            for model in (self.image_tokenizer, self.dalle, self.clip):
                if model is not None:
                    frozen(model, self.device)
            self.code_sampler = CodeSampler(self.dalle)
        if dtype is not None:
            precision = precision_of(dtype, self.device)
            self.sampling = self.sampling.model_copy(update={"precision": precision})
        return self

    @property
    def _models(self) -> tuple[ImageTokenizer, Dalle, Clip | None]:
        return self.image_tokenizer, self.dalle, self.clip

    @overload
    def __call__(
        self, caption: str, *, given: Given | None = None, **keywords: Unpack[CallKeywords]
    ) -> Results: ...

    @overload
    def __call__(
        self,
        caption: list[str] | tuple[str, ...],
        *,
        given: Given | None = None,
        **keywords: Unpack[CallKeywords],
    ) -> list[Results]: ...

    def __call__(
        self,
        caption: str | Sequence[str],
        *,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        negative: str = "",
        avoid_copies: bool = False,
        given: Given | None = None,
        callback: Callback | None = None,
        **settings: Unpack[SamplingKeywords],
    ) -> Results | list[Results]:
        """Different images for a caption, best first; for several captions, such a list for each.

        Args:
            seed: of each caption's first candidate, or one for each caption; 0 if not given.
            generator: draws the seeds instead.
            negative: guidance moves away from this caption in place of the null caption.
            avoid_copies: near copies of training images come last, if the run knows these.
            given: codes to keep, and pixels to paste where they are kept.
            callback: called after each row of codes with the number of codes that every image of
                the batch has, and with the images so far, candidates grouped by caption.
            settings: fields of SamplingConfig that differ from the run's.
        """
        captions = [caption] if isinstance(caption, str) else list(caption)
        config = changed_sampling(self.sampling, settings)
        precision = choose_precision(config.precision, self.device)
        config = config.model_copy(update={"precision": precision})
        seeds = starting_seeds(len(captions), seed, generator)
        progress = callback and decoding(self.image_tokenizer, given and given.codes, callback)
        results = []
        sampled = self.sample(captions, seeds, config, given, negative, progress)
        for first, samples in zip(seeds, sampled, strict=True):
            selected = select(samples, config, self.training_codes, given, avoid_copies)
            ids = torch.from_numpy(self.captions.encode([samples.caption])).to(self.device)
            chosen = score_one_by_one(samples, selected, ids, *self._models, given)
            asked = first, config, negative, given
            results.append(results_of(chosen, selected, *asked, self.origin))
        return results[0] if isinstance(caption, str) else results

    def complete(
        self, image: Image.Image, caption: str, keep_rows: int, **keywords: Unpack[CallKeywords]
    ) -> Results:
        """Keep the first `keep_rows` rows of the image's code grid and sample the rest."""
        given = given_by_rows(self.image_tokenizer, image, keep_rows)
        return self(caption, given=given, **keywords)

    def inpaint(
        self, image: Image.Image, mask: Image.Image, caption: str, **keywords: Unpack[CallKeywords]
    ) -> Results:
        """Sample the codes whose patches the mask touches with white; keep the others.

        The mask has the image's size and is cropped with it; its smallest stroke counts.
        """
        given = given_by_mask(self.image_tokenizer, image, mask)
        return self(caption, given=given, **keywords)

    @torch.no_grad()
    def sample(
        self,
        captions: Sequence[str],
        seeds: Sequence[int],
        config: SamplingConfig,
        given: Given | None = None,
        negative: str = "",
        progress: Progress | None = None,
    ) -> Iterator[Samples]:
        """The `config.candidates` candidates of each caption.

        seeds: the seed of each caption's first candidate; candidate i has seed + i. As many
        captions are sampled together as fit into `config.batch_size`. given, negative: as for
        `__call__`. progress: called with each batch's codes.
        """
        away = torch.from_numpy(self.captions.encode([negative])).to(self.device)
        kept, count = given and given.codes, config.candidates
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
                codes = self.code_sampler(ids, own, config, kept, away, progress)
                batches.append(decode_and_score(codes, ids, *self._models, given))
            for row, (caption, first) in enumerate(zip(texts, first_seeds, strict=True)):
                fields = {name: torch.cat([b[name][row] for b in batches]) for name in batches[0]}
                yield Samples(caption, tuple(range(first, first + count)), **fields)

    def encode(self, image: Image.Image) -> Int[Tensor, "n"]:
        """An image's codes, after the same resize and crop as in training."""
        return encode_image(self.image_tokenizer, image)

    @torch.no_grad()
    def continue_text(
        self,
        prompt: str,
        num_captions: int = 4,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
    ) -> list[SampledCaption]:
        """`num_captions` captions that begin with `prompt`, continued by the transformer.

        Caption i is sampled with seed + i. Settings and errors: `sample_captions`.
        """
        seeds, logits = range(seed, seed + num_captions), self.dalle.text_logits
        return sample_captions(
            self.captions, logits, prompt, seeds, temperature, top_k, self.device
        )

    def rank_captions(
        self, image: Image.Image, captions: Sequence[str], rank_by: CaptionRanking = "likelihood"
    ) -> list[RankedCaption]:
        """The captions, best first, by how well they explain the image (see `rank_captions`)."""
        pixels = to_tensor([image], self.image_tokenizer.image_size).to(self.device)
        ids = torch.from_numpy(self.captions.encode(captions)).to(self.device)
        codes = self.encode(image)[None]
        return rank_captions(captions, ids, codes, self.dalle, pixels, self.clip, rank_by)
