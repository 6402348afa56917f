"""Writes the part of a run that sampling needs: configuration, vocabulary and weights."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from dalle_mini_impl.files import atomic_folder
from dalle_mini_impl.runs.archive import pack
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import load_clip, load_dalle, load_image_tokenizer
from dalle_mini_impl.runs.weights import RunError, WeightsFolder


def export(run: RunFolder, out: Path, dtype: torch.dtype, extra: Mapping[str, bytes]) -> None:
    """Write the run to `out`, a zip if that is its ending and else a folder.

    dtype: of the parameters in the files; they are read as fp32 again. extra: more files by name.
    RunError if `out` exists, or if the run lacks what sampling needs.
    """
    if out.exists():
        raise RunError(f"{out}: exists already; delete it or export to another place")
    captions = run.captions()
    tokenizer = load_image_tokenizer(run)
    models: dict[str, nn.Module] = {"dalle": load_dalle(run, captions, tokenizer)}
    if run.has_weights("clip"):
        models["clip"] = load_clip(run, captions)
    out.parent.mkdir(parents=True, exist_ok=True)
    is_zip = out.suffix == ".zip"
    with TemporaryDirectory() if is_zip else atomic_folder(out) as folder:
        staging = Path(folder)
        for name in ("config.yaml", "captions.json"):
            shutil.copy(run.path / name, staging)
        weights = WeightsFolder(staging)
        weights.save_weights("image_tokenizer", _stored(tokenizer, dtype))
        # The weights of the others name those of the image tokenizer, which rounding changes.
        fits = {"image_tokenizer": weights.weights_hash("image_tokenizer")}
        for name, model in models.items():
            weights.save_weights(name, _stored(model, dtype), **fits)
        for name, content in extra.items():
            (staging / name).write_bytes(content)
        if is_zip:
            pack(staging, out)


def _stored(model: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The state with parameters in `dtype`; buffers, such as counts, keep their type."""
    parameters = model.named_parameters(remove_duplicate=False)
    return model.state_dict() | {name: parameter.to(dtype) for name, parameter in parameters}
