"""One experiment: every section's settings, read from YAML, checked together, written back.

A wrong setting is refused at once by a ConfigError that names the file, the field, its value and
what to write instead.
"""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field, ValidationError, model_validator

from dalle_mini_impl.captions import CaptionsConfig
from dalle_mini_impl.config import Config, ConfigError
from dalle_mini_impl.data.collections.sources import DataConfig
from dalle_mini_impl.experiment.yaml_text import dump_yaml, parse_yaml
from dalle_mini_impl.models.clip import ClipConfig
from dalle_mini_impl.models.dalle import TransformerConfig
from dalle_mini_impl.models.tokenizers.autoencoder import AutoencoderConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import DvaeConfig, ImageTokenizerConfig
from dalle_mini_impl.sampling.draw import SamplingConfig

SHIPPED = Path(__file__).resolve().parents[2] / "configs"


class Experiment(Config):
    """Everything that a run depends on."""

    data: DataConfig = DataConfig()
    """The captioned images."""
    captions: CaptionsConfig = CaptionsConfig()
    """How captions become ids."""
    image_tokenizer: Annotated[ImageTokenizerConfig, Field(discriminator="type")] = DvaeConfig()
    """How images become codes."""
    transformer: TransformerConfig = TransformerConfig()
    """The model of captions and codes."""
    clip: ClipConfig = ClipConfig()
    """The model that ranks candidates."""
    sampling: SamplingConfig = SamplingConfig()
    """How images are drawn unless the command says otherwise."""

    @model_validator(mode="after")
    def _sections_agree(self) -> "Experiment":
        contradictions = list(_contradictions(self))
        if contradictions:
            raise ValueError("\n".join(contradictions))
        return self

    def to_yaml(self) -> str:
        """The full experiment as `load_experiment` reads it."""
        return dump_yaml(self.model_dump(mode="json"))


def load_experiment(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read an experiment; `overrides` replace values by dotted name, as `{"transformer.depth": 8}`.

    Another `image_tokenizer.type` keeps of the file's settings those that it has as well.

    A run's own config.yaml is read as well. ConfigError for whatever is wrong with either.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        shipped = ", ".join(f"configs/{file.name}" for file in sorted(SHIPPED.glob("*.yaml")))
        raise ConfigError(f"{path}: not a readable file ({error}); shipped: {shipped}") from error
    settings = parse_yaml(text, str(path))
    # A run's config.yaml also records what made it; a section left empty keeps its defaults.
    settings = {k: v for k, v in settings.items() if k != "run" and v is not None}
    experiment = _validated(settings, str(path))
    if not overrides:
        return experiment
    asked = overrides.get("image_tokenizer.type", experiment.image_tokenizer.type)
    settings["image_tokenizer"] = _settings_of(asked, settings.get("image_tokenizer", {}))
    for name, value in overrides.items():
        _override(settings, name, value)
    return _validated(settings, f"{path} with the overrides given")


def explain(error: ValidationError, origin: str) -> ConfigError:
    """The same complaints in terms of dotted fields, their values and their mends."""
    lines = [line for detail in error.errors() for line in _explain_one(dict(detail))]
    separator = "\n  " if len(lines) > 1 else " "
    return ConfigError(f"{origin}:{separator}{separator.join(lines)}")


def field_paths(model: type[Config], prefix: str = "") -> Iterator[str]:
    """Dotted names of every setting below `model`."""
    for name, field in model.model_fields.items():
        sections = _sections(field.annotation)
        for section in sections:
            yield from field_paths(section, f"{prefix}{name}.")
        if not sections:
            yield prefix + name


def _validated(settings: dict[str, Any], origin: str) -> Experiment:
    try:
        return Experiment.model_validate(settings)
    except ValidationError as error:
        raise explain(error, origin) from error


def _contradictions(experiment: Experiment) -> Iterator[str]:
    """Settings that are fine alone and impossible together, each with its mend."""
    size, tokenizer = experiment.data.image_size, experiment.image_tokenizer
    transformer, clip, sampling = experiment.transformer, experiment.clip, experiment.sampling

    cell = tokenizer.downsampling
    grid = size // cell
    if size % cell:
        fitting = max(1, round(size / cell)) * cell
        yield (
            f"data.image_size = {size}: not divisible by image_tokenizer.downsampling = {cell}; "
            f"use {fitting}, or another downsampling"
        )
    elif grid * grid > transformer.max_image_tokens:
        yield (
            f"transformer.max_image_tokens = {transformer.max_image_tokens}: fewer than the "
            f"{grid}×{grid} = {grid * grid} codes of an image; raise it, make data.image_size = "
            f"{size} smaller or image_tokenizer.downsampling = {cell} larger"
        )
    for width in tokenizer.widths() if isinstance(tokenizer, AutoencoderConfig) else []:
        if width % max(1, width // 32):
            yield (
                f"image_tokenizer.width = {tokenizer.width}: a level of it has {width} channels, "
                f"which do not split into {width // 32} groups; use a multiple of 64"
            )
            break

    yield from _heads("transformer", transformer.width, "heads", transformer.heads)
    whole = transformer.width % transformer.heads == 0
    if whole and transformer.block == "modern" and transformer.width // transformer.heads % 4:
        yield (
            f"transformer.width = {transformer.width}: {transformer.heads} heads of "
            f"{transformer.width // transformer.heads} channels, but rotary positions need a "
            f"multiple of 4; use a width that is a multiple of {4 * transformer.heads}"
        )
    yield from _heads("clip", clip.text_width, "text_heads", clip.text_heads, "text_width")
    smallest = clip.patch * 2 ** (clip.image_stages - 1)
    if size % smallest:
        yield (
            f"clip.image_stages = {clip.image_stages}: data.image_size = {size} is not divisible "
            f"by clip.patch·2^(stages - 1) = {smallest}; use fewer stages or another patch"
        )
    if clip.image_width % 8:
        yield f"clip.image_width = {clip.image_width}: not a multiple of 8, its normalized groups"

    if sampling.num_images > sampling.candidates:
        yield (
            f"sampling.num_images = {sampling.num_images}: more than sampling.candidates = "
            f"{sampling.candidates}; draw at least as many candidates as images are kept"
        )
    for name in ("image_tokenizer", "transformer", "clip"):
        training = getattr(experiment, name).training
        if training.batch_size % training.grad_accum_steps:
            yield (
                f"{name}.training.grad_accum_steps = {training.grad_accum_steps}: does not divide "
                f"batch_size = {training.batch_size}; use a divisor of it"
            )


def _heads(
    section: str, width: int, heads_field: str, heads: int, width_field: str = "width"
) -> Iterator[str]:
    if width % heads:
        fitting = [n for n in range(1, width + 1) if width % n == 0]
        nearest = min(fitting, key=lambda n: abs(n - heads))
        yield (
            f"{section}.{heads_field} = {heads}: does not divide {section}.{width_field} = "
            f"{width}; use {nearest} heads, or a width that is a multiple of {heads}"
        )


def _settings_of(type_name: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """An image tokenizer's settings less those that its type, if asked for instead, lacks."""
    for kind in get_args(ImageTokenizerConfig):
        if kind.model_fields["type"].default == type_name:
            settings = {k: value for k, value in settings.items() if k in kind.model_fields}
    return {**settings, "type": type_name}


def _override(settings: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        if settings.get(section) is None:
            settings[section] = {}
        settings = settings[section]
        if not isinstance(settings, dict):
            raise ConfigError(f"{name}: {section} is a value, not a section with settings")
    settings[last] = value


def _explain_one(detail: dict[str, Any]) -> Iterator[str]:
    kind, value = detail["type"], detail["input"]
    names, section = _locate(detail["loc"])
    field = ".".join(names)
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if kind == "value_error":
        # A check of our own: it names value and mend, and the field too where it has no place.
        prefix = f"{field}: " if field else ""
        yield from (prefix + line for line in message.splitlines())
    elif kind == "extra_forbidden":
        yield f"{field} = {value!r}: no such setting; {_suggest(names, section)}"
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        given = value.get("type") if isinstance(value, dict) else value
        types = detail["ctx"].get("expected_tags", "'dvae' or 'fsq'").replace(", ", " or ")
        yield f"{field}.type = {given!r}: write one of {types}"
    else:
        if kind == "model_type":
            message = "should be a section of settings"
        known = section.model_fields.get(names[-1]) if section and names else None
        meaning = f" ({known.description})" if known and known.description else ""
        yield f"{field or 'the file'} = {value!r}: {message}{meaning}"


def _suggest(names: list[str], section: type[Config] | None) -> str:
    """The setting that a misspelled or misplaced name most likely means."""
    if section is None:
        return "remove it"
    *parents, wrong = names
    near = difflib.get_close_matches(wrong, section.model_fields, n=1)
    if near:
        return f"did you mean {near[0]}?"
    deeper = [path for path in field_paths(section) if path.split(".")[-1] == wrong]
    if deeper:
        return f"did you mean {'.'.join([*parents, deeper[0]])}?"
    elsewhere = [path for path in field_paths(Experiment) if path.split(".")[-1] == wrong]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    return f"remove it; the settings here are {', '.join(section.model_fields)}"


def _locate(location: tuple[int | str, ...]) -> tuple[list[str], type[Config] | None]:
    """Names on the way to a setting, without a union's tags, and the section that holds it."""
    names: list[str] = []
    holder: type[Config] | None = None
    options: list[type[Config]] = [Experiment]
    for part in location:
        tagged = [o for o in options if "type" in o.model_fields]
        chosen = [o for o in tagged if o.model_fields["type"].default == part]
        if len(options) > 1 and chosen:
            options = chosen
            continue
        holder = options[0] if options else holder
        names.append(str(part))
        field = holder.model_fields.get(str(part)) if holder and options else None
        options = _sections(field.annotation) if field else []
    return names, holder


def _sections(annotation: Any) -> list[type[Config]]:
    """The sections that a field's type allows: none for a plain value, several for a union."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]
