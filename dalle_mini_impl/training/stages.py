"""The stages in order, each from what the ones before left in the run folder.

captions → image_tokenizer → codes → transformer → clip. Each ends by printing the next command.
"""

import json
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.augment import load_images
from dalle_mini_impl.data.batches import CodeBatches, step_rng
from dalle_mini_impl.data.codes import CodeCache, CodeKey, factor_usage, perplexity
from dalle_mini_impl.data.negatives import hard_negatives
from dalle_mini_impl.evaluation.report.gallery import sample_gallery
from dalle_mini_impl.evaluation.report.report import write_report
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.models.dalle import Dalle
from dalle_mini_impl.models.tokenizers.image_tokenizer import (
    DvaeConfig,
    FsqConfig,
    ImageTokenizer,
    VqganConfig,
    build_image_tokenizer,
)
from dalle_mini_impl.models.tokenizers.palette import PaletteConfig
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.runs.folder import WEIGHTS, RunFolder
from dalle_mini_impl.runs.loading import frozen, load_image_tokenizer
from dalle_mini_impl.training.checkpoints import TrainState, list_checkpoints
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.loop import train
from dalle_mini_impl.training.objectives.clip import ClipObjective
from dalle_mini_impl.training.objectives.dalle import DalleObjective
from dalle_mini_impl.training.objectives.image_tokenizer import (
    DvaeObjective,
    FsqObjective,
    collapse_warning,
)
from dalle_mini_impl.training.objectives.palette import PaletteObjective
from dalle_mini_impl.training.objectives.perceptual import perceptual_features
from dalle_mini_impl.training.objectives.vqgan import VqganObjective
from dalle_mini_impl.training.previews import reconstruction_previews, sample_previews

AUGMENTED_VARIANTS = 4
"""Encodings of each image where crops or flips are asked for, the first of them plain."""
ENCODED_AT_ONCE = 128


def train_captions(shop: StageContext) -> None:
    """Train or copy the vocabulary; report captions that it cuts."""
    texts = [text for captions in shop.store.captions for text in captions]
    if shop.processes.is_main_process:
        shop.run.save_captions(CaptionTokenizer.from_config(shop.experiment.captions, texts))
    shop.processes.wait_for_everyone()
    different = sorted(set(texts))
    cut = shop.vocabulary.count_truncated(different)
    shop.say(
        f"captions: {shop.vocabulary.vocabulary_size:,} tokens; {cut:,} of {len(different):,} "
        f"different captions are longer than {shop.vocabulary.context} tokens and lose their end"
    )


def train_image_tokenizer(shop: StageContext) -> None:
    """Train the image tokenizer on the images."""
    config, run = shop.experiment.image_tokenizer, shop.run
    before = run.weights_hash("image_tokenizer") if run.has_weights("image_tokenizer") else None
    torch.manual_seed(config.training.seed)
    model = build_image_tokenizer(config, shop.experiment.data.image_size)
    objective = image_tokenizer_objective(shop, model)
    shown = shop.split("validation")
    train(
        objective,
        shop.image_batches(config.training, dropout=False),
        config.training,
        run,
        "image_tokenizer",
        shop.resume,
        preview=reconstruction_previews(
            objective, run, shown if len(shown) else shop.store, shop.experiment.data, shop.device
        ),
    )
    made = [name for name in ("dalle", "clip") if run.has_weights(name)]
    if made and before != run.weights_hash("image_tokenizer"):
        shop.say(
            f"WARNING: {' and '.join(made)} were trained with other image codes and no longer fit; "
            f"`python train.py --run {run.path}` trains them anew"
        )


def image_tokenizer_objective(
    shop: StageContext, model: ImageTokenizer
) -> DvaeObjective | FsqObjective | VqganObjective | PaletteObjective:
    """The objective of the configured type."""
    match config := shop.experiment.image_tokenizer:
        case DvaeConfig():
            return DvaeObjective(model, config)
        case FsqConfig():
            return FsqObjective(model, config)
        case PaletteConfig():
            return PaletteObjective(model, config)
        case VqganConfig():
            return VqganObjective(model, config, perceptual_features(shop, config))


def encode_images(shop: StageContext) -> None:
    """Fill the code cache unless it is current, and report how the codes are used."""
    tokenizer = frozen(load_image_tokenizer(shop.run), shop.device)
    cache = codes_of(shop, tokenizer)
    counts = cache.counts(tokenizer.code_count)
    usage, spread = factor_usage(counts, tokenizer.factors), float(perplexity(counts))
    each = " of each factor" if len(tokenizer.factors) > 1 else ""
    shop.say(
        f"codes: {(counts > 0).sum():,} of {tokenizer.code_count:,} in use ({usage:.0%}{each}), "
        f"perplexity {spread:,.0f}"
    )
    if shop.processes.is_main_process:
        shop.run.log("codes", 0, code_usage=usage, perplexity=spread)
    warning = collapse_warning(usage, spread, tokenizer)
    if warning:
        shop.say(f"WARNING: {warning}")


def codes_of(shop: StageContext, tokenizer: ImageTokenizer) -> CodeCache:
    """The codes of all training images, from the cache unless it is missing or stale."""
    data = shop.experiment.data
    augmented = data.random_resized_crop is not None or data.horizontal_flip
    variants = AUGMENTED_VARIANTS if augmented else 1
    weights = shop.run.weights_hash("image_tokenizer")
    key = CodeKey(weights, shop.store.fingerprint, variants, len(shop.store))
    folder = shop.run.cache / "codes"
    with shop.processes.main_process_first():
        cache = CodeCache.open(folder, key)
        if cache is None:
            if (folder / "codes.json").is_file():
                shop.say("codes: the cache is of another image tokenizer or other data; renewing")
            shop.say(f"codes: encoding {len(shop.store):,} images, {variants} variant(s) each")
            cache = CodeCache.write(folder, key, _encoded(shop, tokenizer, variants))
    return cache


def _encoded(shop: StageContext, tokenizer: ImageTokenizer, variants: int) -> Iterator[np.ndarray]:
    for variant in range(variants):
        for start in range(0, len(shop.store), ENCODED_AT_ONCE):
            rows = np.arange(start, min(start + ENCODED_AT_ONCE, len(shop.store)), dtype=np.int64)
            rng = step_rng(variant, start, 0) if variant else None
            images = load_images(shop.store, rows, shop.experiment.data, rng)
            with torch.no_grad():
                yield tokenizer.encode(images.to(shop.device)).cpu().numpy()


def train_transformer(shop: StageContext) -> None:
    """Train the transformer on captions and cached codes."""
    config, run = shop.experiment.transformer, shop.run
    tokenizer = frozen(load_image_tokenizer(run), shop.device)
    batches = CodeBatches(
        codes_of(shop, tokenizer),
        shop.table(dropout=True),
        config.training.batch_size,
        config.training.seed,
        shop.processes.process_index,
        shop.processes.num_processes,
    )
    torch.manual_seed(config.training.seed)
    vocabulary = shop.vocabulary
    model = Dalle(
        config,
        vocabulary.vocabulary_size,
        vocabulary.context,
        tokenizer.code_count,
        tokenizer.grid,
        tokenizer.factors,
    )
    train(
        DalleObjective(model, config),
        batches,
        config.training,
        run,
        "transformer",
        shop.resume,
        weights="dalle",
        preview=sample_previews(run, vocabulary, tokenizer, shop.store, shop.device),
        made_from={"image_tokenizer": run.weights_hash("image_tokenizer")},
    )


def train_clip(shop: StageContext) -> None:
    """Train CLIP on captions with images and, in part, with their reconstructions.

    Reconstructions are what it will judge; where the configuration wants none
    (clip.reconstructions 0), CLIP needs no image tokenizer and fits any.
    """
    config, run = shop.experiment.clip, shop.run
    judges = config.reconstructions > 0
    made_from = {"image_tokenizer": run.weights_hash("image_tokenizer")} if judges else {}
    training = config.training
    alike = len(set(shop.store.captions)) == 1
    if alike:
        shop.say(
            f"WARNING: every image has the caption {shop.store.captions[0][0]!r}: CLIP has "
            "nothing to tell apart and stops after one step; its ranking is worth nothing"
        )
        training = training.model_copy(update={"steps": 1})
    negative = hard_negatives(shop.store.captions, shop.store.attributes)
    batches = shop.image_batches(
        training, dropout=True, negative=negative, negatives=config.hard_negatives
    )
    torch.manual_seed(config.training.seed)
    model = Clip(
        config,
        shop.vocabulary.vocabulary_size,
        shop.vocabulary.context,
        shop.experiment.data.image_size,
    )
    train(
        ClipObjective(model, config, _autoencoder(shop) if judges else None),
        batches,
        training,
        run,
        "clip",
        shop.resume,
        made_from=made_from,
    )
    if not alike:
        _warn_if_clip_learned_nothing(shop, training.batch_size)


def _autoencoder(shop: StageContext) -> Callable[[Tensor], Tensor]:
    """Images to what the run's image tokenizer decodes of them."""
    tokenizer = frozen(load_image_tokenizer(shop.run), shop.device)
    return lambda images: tokenizer.decode(tokenizer.encode(images))


def _warn_if_clip_learned_nothing(shop: StageContext, batch_size: int) -> None:
    losses = [
        record["contrastive"]
        for record in shop.run.metrics()
        if record["stage"] == "clip" and record.get("contrastive") is not None
    ]
    chance = float(np.log(batch_size * shop.processes.num_processes))
    if losses and shop.experiment.clip.loss == "infonce" and losses[-1] > 0.95 * chance:
        shop.say(
            f"WARNING: CLIP's loss ends at {losses[-1]:.2f}, about ln(batch) = {chance:.2f}: it "
            "tells no caption from another. Train it longer, or with a lower learning rate, or "
            "check with `dalle data check` that captions belong to their images"
        )


STAGES: dict[str, Callable[[StageContext], None]] = {
    "captions": train_captions,
    "image_tokenizer": train_image_tokenizer,
    "codes": encode_images,
    "transformer": train_transformer,
    "clip": train_clip,
}


def run_stages(
    run: RunFolder, stage: str | None = None, resume: bool = True, tensorboard: bool = False
) -> None:
    """Run `stage`, or every stage whose result the run does not have, in order.

    resume: continue a stage from its checkpoint; if not, it begins anew, and so does every stage
    where none is named. tensorboard: mirror the metrics.
    Raises ConfigError for a stage that does not exist.
    """
    if stage is not None and stage not in STAGES:
        raise ConfigError(f"--stage {stage}: no such stage; choose one of {', '.join(STAGES)}")
    shop = StageContext(run, resume)
    if tensorboard and shop.processes.is_main_process:
        run.mirror_to_tensorboard()
    for name in [stage] if stage else STAGES:
        # Asked before each stage, as a new image tokenizer outdates what was made with the old.
        due = stage is not None or not resume or name in missing_stages(run)
        shop.processes.wait_for_everyone()
        if not due:
            continue
        STAGES[name](shop)
        shop.say(f"{name}: done. Next: {next_command(run)}")
    shop.processes.wait_for_everyone()
    complete = not missing_stages(run)
    if complete:
        shop.split("held_out")  # The gallery shows compositions that training never saw.
    if shop.processes.is_main_process:
        if complete:
            shop.say(f"{run.path} is complete: {next_command(run)}")
            sample_gallery(run, TextToImage.from_pretrained(run, shop.device))
        shop.say(f"report: {write_report(run)}")


def missing_stages(run: RunFolder) -> list[str]:
    """Stages whose results the run lacks; codes are needed as long as the transformer is."""
    missing = [] if run.has_captions() else ["captions"]
    lacking = [stage for stage, name in WEIGHTS.items() if not _has_result(run, stage, name)]
    if "transformer" in lacking:
        lacking.append("codes")
    return [stage for stage in STAGES if stage in [*missing, *lacking]]


def _has_result(run: RunFolder, stage: str, name: str) -> bool:
    if not run.has_weights(name) or not run.fits_image_tokenizer(name):
        return False
    # A retraining that was interrupted left newer checkpoints beside the older weights.
    notes = [path / "place.json" for path in list_checkpoints(run.path / "checkpoints" / stage)]
    if not notes or notes[0].stat().st_mtime <= run.weights_path(name).stat().st_mtime:
        return True
    place = TrainState(**json.loads(notes[0].read_text(encoding="utf-8")))
    training = getattr(run.experiment, stage).training
    timed_out = training.minutes is not None and place.elapsed >= 60 * training.minutes
    return place.step >= training.steps or timed_out


def next_command(run: RunFolder) -> str:
    """The command that does what comes next: train what is missing, or sample."""
    missing = [stage for stage in missing_stages(run) if stage != "codes"]
    if missing:
        return f"python train.py --run {run.path} --stage {missing[0]}"
    return f'python sample.py "CAPTION" --run {run.path}'
