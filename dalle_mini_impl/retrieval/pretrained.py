"""CLIP models of other libraries as encoders. They need the extra `pretrained`.

A name that is a local folder or file is read from there; nothing is downloaded for it.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.messages import import_problem
from dalle_mini_impl.retrieval.encoder import JointEncoder
from dalle_mini_impl.retrieval.preprocessing import Preprocessing
from dalle_mini_impl.runs.loading import frozen
from dalle_mini_impl.runs.weights import tensor_digest

BROKEN = (ImportError, RuntimeError, OSError)
"""What importing a library raises, or one that it needs and that does not fit this torch."""
WEIGHT_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")


def load_pretrained(name: str, device: str | torch.device = "cpu") -> JointEncoder:
    """`transformers:NAME` or `open_clip:ARCHITECTURE[:WEIGHTS]`; names may be local paths.

    ConfigError if the library is not installed or the model cannot be loaded.
    """
    library, _, model = name.partition(":")
    loaders: dict[str, Callable[[str, str | torch.device], JointEncoder]] = {
        "transformers": TransformersClip,
        "open_clip": OpenClip,
    }
    if library not in loaders or not model:
        raise ConfigError(
            f"--clip {name!r}: write transformers:NAME or open_clip:ARCHITECTURE:WEIGHTS, such as "
            "transformers:openai/clip-vit-base-patch32 or open_clip:ViT-B-32:clip.safetensors"
        )
    return loaders[library](model, device)


class TransformersClip(JointEncoder):
    """A CLIP or SigLIP of Hugging Face transformers, by folder or name."""

    def __init__(self, name: str, device: str | torch.device = "cpu"):
        try:
            from transformers import AutoConfig, AutoModel, AutoTokenizer, ImageProcessingMixin
        except BROKEN as error:
            raise _not_importable("transformers", error) from error
        name = _present(name, f"--clip transformers:{name}", "folder")
        try:
            config = AutoConfig.from_pretrained(name)
            # Safetensors only: other weight files are pickles, which can run code.
            model = AutoModel.from_pretrained(name, use_safetensors=True)
            # Only its numbers are needed; the processor itself would need torchvision.
            processor, _ = ImageProcessingMixin.get_image_processor_dict(name)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
        except ImportError as error:
            raise _not_importable("transformers", error) from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"--clip transformers:{name}: {error}") from error
        if not hasattr(model, "get_image_features"):
            raise ConfigError(f"--clip transformers:{name}: {config.model_type} is not a CLIP")
        self.device = torch.device(device)
        self.model: Any = frozen(model, self.device)
        self.image_size = int(config.vision_config.image_size)
        self.context = int(config.text_config.max_position_embeddings)
        # SigLIP was trained on texts padded to the full context, CLIP on texts with a mask.
        self.padding = "max_length" if "siglip" in config.model_type else "longest"
        self.mean, self.deviation = _per_channel(
            processor["image_mean"], processor["image_std"], self.device
        )
        self.preprocessing = Preprocessing.of_transformers(processor)
        self.logit_scale = float(self.model.logit_scale.exp())
        self.key = _key("transformers", self.model, self.preprocessing)

    def embed_pixels(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        normalized = (resized(pixels, self.image_size) - self.mean) / self.deviation
        return _unit(self.model.get_image_features(pixel_values=normalized))

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "b e"]:
        ids = self.tokenizer(
            list(texts),
            padding=self.padding,
            truncation=True,
            max_length=self.context,
            return_tensors="pt",
        )
        return _unit(self.model.get_text_features(**ids.to(self.device)))


class OpenClip(JointEncoder):
    """A CLIP of open_clip: ARCHITECTURE, with `:WEIGHTS` a local file or one of its tags."""

    def __init__(self, name: str, device: str | torch.device = "cpu"):
        try:
            import open_clip
        except BROKEN as error:
            raise _not_importable("open_clip", error) from error
        # A Hub name such as hf-hub:owner/name contains a colon itself.
        hub = name.startswith(("hf-hub:", "local-dir:"))
        architecture, _, weights = (name, "", "") if hub else name.partition(":")
        if name.startswith("local-dir:"):
            folder = name.removeprefix("local-dir:")
            folder = _present(folder, f"--clip open_clip:{name}", "folder")
            architecture = f"local-dir:{folder}"
            if not any(Path(folder).glob("*.safetensors")):
                raise _not_safetensors(name, f"{folder} has no weights in safetensors")
        weights = _present(weights, f"--clip open_clip:{name}", "file")
        if Path(weights).is_file() and Path(weights).suffix != ".safetensors":
            raise _not_safetensors(name, f"{weights} is not a file of safetensors")
        self.device = torch.device(device)
        try:
            model = open_clip.create_model(
                architecture, pretrained=weights or None, device=self.device
            )
            self.tokenizer: Any = open_clip.get_tokenizer(architecture)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"--clip open_clip:{name}: {error}") from error
        if not (weights or hub):
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
            raise ConfigError(f"--clip open_clip:{name}: add :WEIGHTS, a file or one of: {tags}")
        self.model: Any = frozen(model)
        size = model.visual.image_size
        self.image_size = int(size[0] if isinstance(size, tuple | list) else size)
        self.mean, self.deviation = _per_channel(
            model.visual.image_mean, model.visual.image_std, self.device
        )
        self.preprocessing = Preprocessing.of_open_clip(getattr(model.visual, "preprocess_cfg", {}))
        self.logit_scale = float(model.logit_scale.exp())
        self.key = _key("open_clip", model, self.preprocessing)

    def embed_pixels(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        normalized = (resized(pixels, self.image_size) - self.mean) / self.deviation
        return _unit(self.model.encode_image(normalized))

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "b e"]:
        return _unit(self.model.encode_text(self.tokenizer(list(texts)).to(self.device)))


def resized(pixels: Float[Tensor, "b 3 h w"], size: int) -> Float[Tensor, "b 3 s s"]:
    """Pixels at size × size, differentiable."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    return F.interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def _unit(features: Any) -> Float[Tensor, "b e"]:
    # Newer transformers wrap the features in an output object.
    vectors = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(vectors.float(), dim=-1)


def _per_channel(
    mean: Sequence[float], deviation: Sequence[float], device: torch.device
) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (mean, deviation))  # type: ignore[return-value]


def _key(library: str, model: nn.Module, preprocessing: Preprocessing) -> str:
    """Changes with the weights and with how images are prepared, as the vectors do."""
    return f"{library} {tensor_digest(model.state_dict())} {preprocessing}"


def _present(name: str, option: str, kind: Literal["file", "folder"]) -> str:
    """The name, `~` resolved; ConfigError if it can only be a local path and nothing is there."""
    path = Path(os.path.expanduser(name))
    local = path.is_absolute() or name.startswith(".") or name.count("/") > 1
    if (local or path.suffix in WEIGHT_SUFFIXES) and not path.exists():
        raise ConfigError(f"{option}: there is no {kind} {path} (from {Path.cwd()})")
    found = path.is_file() if kind == "file" else path.is_dir()
    return str(path) if found else name


def _not_safetensors(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"--clip open_clip:{name}: {why}, and other files can run code when they are loaded; name "
        "weights that end in .safetensors: most models on the Hugging Face Hub have them, and "
        "safetensors.torch.save_file writes them"
    )


def _not_importable(library: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"--clip {library}:…: {import_problem(library, error)}; "
        "`pip install transformers open_clip_torch`, or leave --clip out to use the run's CLIP"
    )
