"""One experiment: the settings of every section, checked together."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import model_validator

from dalle_mini_impl.captions import CaptionsConfig
from dalle_mini_impl.config import Config
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.experiment.checks import (
    check_clip,
    check_encodings,
    check_image_tokenizer,
    check_sampling,
    check_training,
    check_transformer,
)
from dalle_mini_impl.experiment.yaml_text import dump_yaml
from dalle_mini_impl.models.config import ClipConfig, TransformerConfig
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.sampling.config import SamplingConfig


class Experiment(Config):
    """Everything that a run depends on."""

    data: DataConfig = DataConfig()
    """The captioned images."""
    captions: CaptionsConfig = CaptionsConfig()
    """How captions become ids."""
    image_tokenizer: ImageTokenizerConfig = ImageTokenizerConfig()
    """How images become codes."""
    transformer: TransformerConfig = TransformerConfig()
    """The model of captions and codes."""
    clip: ClipConfig = ClipConfig()
    """The model that ranks candidates."""
    sampling: SamplingConfig = SamplingConfig()
    """How images are sampled unless the command says otherwise."""

    @model_validator(mode="after")
    def _sections_agree(self) -> "Experiment":
        contradictions = list(self._contradictions())
        if contradictions:
            raise ValueError("\n".join(contradictions))
        return self

    def _contradictions(self) -> Iterator[str]:
        size = self.data.image_size
        yield from check_image_tokenizer(self.image_tokenizer, size)
        yield from check_transformer(self.transformer, size, self.image_tokenizer.downsampling)
        yield from check_encodings(self.transformer, self.image_tokenizer.quantizer)
        yield from check_clip(self.clip, size)
        yield from check_sampling(self.sampling)
        yield from check_training("image_tokenizer", self.image_tokenizer.training)
        yield from check_training("transformer", self.transformer.training)
        yield from check_training("clip", self.clip.training)

    def to_yaml(self) -> str:
        """The full experiment as `load_experiment` reads it."""
        return dump_yaml(self.model_dump(mode="json"))


def field_paths(model: type[Config], prefix: str = "") -> Iterator[str]:
    """Dotted names of every setting below `model`."""
    for name, field in model.model_fields.items():
        sections = sections_of(field.annotation)
        for section in sections:
            yield from field_paths(section, f"{prefix}{name}.")
        if not sections:
            yield prefix + name


def sections_of(annotation: Any) -> list[type[Config]]:
    """The sections that a field's type allows: none for a plain value, several for a union."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_of(part)]
