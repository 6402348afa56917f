"""Preview images during training: reconstructions beside originals, samples of fixed captions."""

import numpy as np
import torch
from torch import nn

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.store import Store
from dalle_mini_impl.images import contact_sheet, save_png, to_images
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.training.loop import Preview
from dalle_mini_impl.training.objectives.image_tokenizer import ImageTokenizerObjective
from dalle_mini_impl.training.objectives.reconstruction import collapse_warning

MEASURED_IMAGES, SHOWN_IMAGES = 256, 16
SAMPLED_CAPTIONS = 8


def reconstruction_previews(
    objective: ImageTokenizerObjective,
    run: RunFolder,
    store: Store,
    data: DataConfig,
    device: torch.device,
) -> Preview:
    """Log quality and code usage on fixed images and show some beside their originals."""
    images = load_images(store, _spread(len(store), MEASURED_IMAGES), data, None).to(device)

    def preview(model: nn.Module, step: int) -> None:
        assert isinstance(model, ImageTokenizer)
        report = objective.evaluate(model, images)
        run.log("image_tokenizer", step, **report)
        # With fewer positions than codes, most codes cannot occur.
        warning = collapse_warning(report["code_usage"], report["perplexity"], model)
        if warning and images.shape[0] * model.grid**2 >= 4 * model.code_count:
            print(f"WARNING at step {step:,}: {warning}", flush=True)
        pairs = objective.preview(model, images[:SHOWN_IMAGES])
        sheet = contact_sheet(to_images(pairs), columns=8, scale=2)
        save_png(sheet, run.previews / f"image_tokenizer-{step:06d}.png")

    return preview


def sample_previews(
    run: RunFolder,
    vocabulary: CaptionTokenizer,
    tokenizer: ImageTokenizer,
    store: Store,
    device: torch.device,
) -> Preview:
    """Sample one image for each of a few fixed captions."""
    captions = [store.captions[i][0] for i in _spread(len(store), SAMPLED_CAPTIONS)]
    settings = run.experiment.sampling.model_copy(update={"num_images": 1, "candidates": 1})

    def preview(model: nn.Module, step: int) -> None:
        assert isinstance(model, Dalle)
        pipeline = TextToImage(vocabulary, tokenizer, model, None, settings, device)
        samples = pipeline.sample(captions, [0] * len(captions), settings)
        images = to_images(torch.cat([own.pixels for own in samples]))
        sheet = contact_sheet(images, captions, columns=4, scale=2)
        save_png(sheet, run.previews / f"transformer-{step:06d}.png")

    return preview


def _spread(n: int, count: int) -> np.ndarray:
    """At most `count` indices, evenly spaced over n."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).astype(np.int64))
