"""A run measured on held-out images of its own collection, model by model."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.data.preparation import prepare
from dalle_mini_impl.evaluation.held_out import CollectionSettings, HeldOut, random_rows
from dalle_mini_impl.evaluation.held_out_clip import HeldOutClip
from dalle_mini_impl.evaluation.measures.features import Features, StoredImages, pixel_features
from dalle_mini_impl.evaluation.measures.likelihood import measure_likelihood
from dalle_mini_impl.evaluation.measures.reconstruction import (
    encode,
    encode_again,
    measure_reconstructions,
    reconstruct,
)
from dalle_mini_impl.evaluation.measures.samples import (
    NEIGHBORS,
    measure_distribution,
    measure_memorization,
    measure_reranking,
    measure_scores,
)
from dalle_mini_impl.evaluation.report.page import ReportPart
from dalle_mini_impl.evaluation.suites.core import seeds_apart
from dalle_mini_impl.images import to_uint8
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import frozen, load_image_tokenizer
from dalle_mini_impl.sampling.samples import Samples
from dalle_mini_impl.sampling.training_codes import TrainingCodes


def evaluate_collection(
    run: RunFolder,
    settings: CollectionSettings,
    device: torch.device,
    features: Features | None = None,
    report: Callable[[str], None] = print,
) -> list[ReportPart]:
    """Measure the models that the run has; parts whose models are missing are left out.

    features: for comparing sets of images; by default the run's CLIP, or plain pixels where there
    is none or it has learned nothing. Raises RunError where the run has no image tokenizer.
    """
    tokenizer = frozen(load_image_tokenizer(run), device)
    held_out = HeldOut(run, settings, report)
    clip = HeldOutClip(run, held_out, device) if run.has_weights("clip") else None
    parts = []
    if features is None:
        why_not = "" if clip is None else clip.why_no_measure()
        features = pixel_features(8) if clip is None or why_not else clip.features
        if why_not:
            parts.append(ReportPart("Features", {"warning": why_not}, warnings=[why_not]))
    report(f"image tokenizer: {counted(len(held_out), f'{settings.split} image')}")
    decoded, codes = reconstruct(tokenizer, held_out.images, device)
    again = encode_again(tokenizer.encode, decoded, device)
    parts.append(
        measure_reconstructions(held_out.images, decoded, codes, again, tokenizer.factors, features)
    )
    if run.has_weights("dalle"):
        model = TextToImage.from_pretrained(run, device)
        report("transformer: loss by caption")
        likelihood = model.dalle.log_likelihood
        parts.append(
            measure_likelihood(likelihood, held_out.ids, codes, tokenizer.code_count, device)
        )
        report(f"samples: {len(held_out):,} at guidance {settings.guidance:g}")
        samples = _sample(model, held_out.captions, settings, candidates=1)
        store = prepare(run.experiment.data, "train", run.cache / "images", report)
        chosen = random_rows(store, settings.train_examples, settings.seed)
        train = StoredImages(store, chosen, run.experiment.data)
        parts += _compare_samples(samples, held_out, train, features)
        every = StoredImages(store, range(len(store)), run.experiment.data)
        parts.append(_memorization(model, samples, codes, every, settings))
        if max(settings.candidates) > 1:
            parts.append(_reranking(model, held_out, settings, features, report))
    if clip is not None:
        report("CLIP: retrieval, hard negatives, calibration")
        parts += clip.parts()
    return parts


def _sample(
    model: TextToImage, captions: Sequence[str], settings: CollectionSettings, candidates: int
) -> list[Samples]:
    """Candidates of each caption; no two captions share noise."""
    config = model.sampling.model_copy(
        update={
            "guidance": settings.guidance,
            "batch_size": settings.batch_size,
            "candidates": candidates,
        }
    )
    seeds = seeds_apart(settings.seed, len(captions), max(settings.candidates))
    return list(model.sample(captions, seeds, config))


def _compare_samples(
    samples: Sequence[Samples],
    held_out: HeldOut,
    train: StoredImages,
    features: Features,
) -> list[ReportPart]:
    """One sample of each held-out caption against real images."""
    parts = [measure_scores(samples)]
    sampled = torch.cat([_rounded(own.pixels) for own in samples])
    # The distance shrinks with the number of images, so all sets have the same.
    n = min(len(sampled), len(train))
    if n > NEIGHBORS:
        real = held_out.images[:n]
        parts.append(measure_distribution(sampled[:n], real, train[:n], features))
    return parts


def _memorization(
    model: TextToImage,
    samples: Sequence[Samples],
    held_out: Int[Tensor, "n k"],
    train: StoredImages,
    settings: CollectionSettings,
) -> ReportPart:
    """How many samples are near copies: of all training images, or of some without a code cache."""
    training = model.training_codes
    if training is None or training.codes.shape[1] != len(train):
        chosen = random_rows(train.store, settings.train_examples, settings.seed)
        train = StoredImages(train.store, chosen, train.data)
        encoded = encode(model.image_tokenizer, train, model.device)
        training = TrainingCodes(encoded.numpy()[None])
    codes = torch.cat([own.codes.cpu() for own in samples])
    sampled = torch.cat([_rounded(own.pixels) for own in samples])
    return measure_memorization(sampled, codes, held_out, training, train)


def _reranking(
    model: TextToImage,
    held_out: HeldOut,
    settings: CollectionSettings,
    features: Features,
    report: Callable[[str], None],
) -> ReportPart:
    """What choosing among the candidates of some captions gains."""
    count = max(1, min(len(held_out), max(16, len(held_out) // 16)))
    most = max(settings.candidates)
    report(f"reranking: {counted(count, 'caption')}, {counted(most, 'candidate')} each")
    samples = _sample(model, held_out.captions[:count], settings, most)
    likeness = torch.stack(
        [
            F.cosine_similarity(features(_rounded(own.pixels)), target[None], dim=1)
            for own, target in zip(samples, features(held_out.images[:count]), strict=True)
        ]
    )
    return measure_reranking(samples, likeness, settings.candidates, features)


def _rounded(pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Pixels rounded to 8 bits as the collection's images are, on the CPU."""
    return torch.from_numpy(to_uint8(pixels)).permute(0, 3, 1, 2).contiguous().float() / 255
