"""TextToImage: a trained run as one object, and the results it returns."""

from dalle_mini_impl.pipeline.result import Result, Results
from dalle_mini_impl.pipeline.text_to_image import TextToImage

__all__ = ["Result", "Results", "TextToImage"]
