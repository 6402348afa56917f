"""The objective of each type of image tokenizer."""

from dalle_mini_impl.models.tokenizers.configs import DvaeConfig, FsqConfig, VqganConfig
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer, ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.palette import PaletteConfig
from dalle_mini_impl.training.objectives.dvae import DvaeObjective
from dalle_mini_impl.training.objectives.fsq import FsqObjective
from dalle_mini_impl.training.objectives.palette import PaletteObjective
from dalle_mini_impl.training.objectives.vqgan import Features, VqganObjective

ImageTokenizerObjective = DvaeObjective | FsqObjective | VqganObjective | PaletteObjective


def image_tokenizer_objective(
    model: ImageTokenizer, config: ImageTokenizerConfig, features: Features | None = None
) -> ImageTokenizerObjective:
    """The objective of the configured type. features: of VQGAN's perceptual loss."""
    match config:
        case DvaeConfig():
            return DvaeObjective(model, config)
        case FsqConfig():
            return FsqObjective(model, config)
        case PaletteConfig():
            return PaletteObjective(model, config)
        case VqganConfig():
            return VqganObjective(model, config, features)
