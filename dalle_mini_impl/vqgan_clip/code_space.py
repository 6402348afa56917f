"""The latents of an image tokenizer as a continuous space, decoded through their nearest codes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.vqgan_clip.cutouts import warp
from dalle_mini_impl.vqgan_clip.optimize import Limits


class ReturningClamp(torch.autograd.Function):
    """Clamp to [0, 1] that lets a gradient through where it leads back into the range.

    Under a plain clamp, saturated pixels get no gradient: a white background could never change.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        return gradient * (gradient * (values - values.clamp(0, 1)) >= 0)


class CodeSpace:
    """Latents `b d g g`: decoded through their nearest codes, with the gradient straight through.

    Works with every image tokenizer of the project.
    """

    def __init__(self, tokenizer: ImageTokenizer):
        self.tokenizer = tokenizer
        parameter = next(tokenizer.parameters())
        self.device = parameter.device
        self.vectors = tokenizer.quantizer.codebooks()
        """The latents of all codes of each factor, `k d`."""

    @property
    def limits(self) -> Limits:
        """The range of the codes in every channel, and their standard deviation."""
        low = torch.cat([vectors.amin(dim=0) for vectors in self.vectors])
        high = torch.cat([vectors.amax(dim=0) for vectors in self.vectors])
        scale = float(torch.cat([vectors.std(dim=0) for vectors in self.vectors]).mean())
        return Limits(low.reshape(1, -1, 1, 1), high.reshape(1, -1, 1, 1), scale)

    def decode(self, latents: Float[Tensor, "b d g g"]) -> Float[Tensor, "b 3 h w"]:
        """Images of the nearest codes, in [0, 1]."""
        tokenizer = self.tokenizer
        maps = tokenizer.decoder(tokenizer.quantize(latents)[0])
        return ReturningClamp.apply(tokenizer.pixels.unclamped(maps))

    def codes(self, latents: Float[Tensor, "b d g g"]) -> Int[Tensor, "b n"]:
        """The nearest codes."""
        return self.tokenizer.quantize(latents)[1]

    @torch.no_grad()
    def from_codes(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b d g g"]:
        """The latents of codes."""
        return self.tokenizer.embed(codes.to(self.device))

    @torch.no_grad()
    def from_pixels(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d g g"]:
        """The latents of images in [0, 1] of the tokenizer's size."""
        return self.from_codes(self.tokenizer.encode(pixels.to(self.device)))

    def random(self, count: int, generator: torch.Generator) -> Float[Tensor, "b d g g"]:
        """Codes drawn uniformly at random."""
        shape = (count, self.tokenizer.grid**2)
        return self.from_codes(torch.randint(self.tokenizer.code_count, shape, generator=generator))

    def noise(self, count: int, generator: torch.Generator) -> Float[Tensor, "b d g g"]:
        """Images of noise of equal strength at every scale."""
        size, pixels = self.tokenizer.image_size, torch.zeros(count, 3, 1, 1)
        side, octaves = 1, 0
        while side <= size:
            grain = torch.randn(count, 3, side, side, generator=generator)
            pixels = pixels + torch.nn.functional.interpolate(
                grain, (size, size), mode="bilinear", align_corners=False
            )
            side, octaves = 2 * side, octaves + 1
        return self.from_pixels((0.5 + 0.25 * pixels / octaves**0.5).clamp(0, 1))

    def solid(self, count: int, color: Sequence[float]) -> Float[Tensor, "b d g g"]:
        """Images of one color, red, green and blue in [0, 1]."""
        size = self.tokenizer.image_size
        pixels = torch.tensor(color, dtype=torch.float32).view(1, 3, 1, 1)
        return self.from_pixels(pixels.expand(count, 3, size, size).contiguous())

    def penalty(self, nearness: float) -> Callable[[Tensor], Tensor]:
        """A cost of each row of latents for its distance to the nearest codes.

        nearness: weight of the squared distance, in squared deviations of the codebook, averaged
        over positions and channels.
        """
        scale = self.limits.scale

        def cost(latents: Float[Tensor, "b d g g"]) -> Float[Tensor, "b"]:
            nearest = self.from_codes(self.codes(latents))
            return nearness * (latents - nearest).square().mean(dim=(1, 2, 3)) / scale**2

        return cost

    def distances(self, latents: Float[Tensor, "b d g g"]) -> list[Float[Tensor, "b n _"]]:
        """Squared distance of each position to every code, in squared deviations of the codebook.

        Divided by the number of channels. Where codes have several factors, one tensor for each
        factor: a code's distance is their sum.
        """
        points = latents.flatten(2).transpose(1, 2)
        unit = self.limits.scale**2 * points.shape[-1]
        widths = [vectors.shape[1] for vectors in self.vectors]
        return [
            (
                own.square().sum(-1, keepdim=True) - 2 * own @ vectors.T + vectors.square().sum(-1)
            ).clamp(min=0)
            / unit
            for own, vectors in zip(points.split(widths, dim=-1), self.vectors, strict=True)
        ]

    def camera_motion(
        self, zoom: float = 1.0, pan: tuple[float, float] = (0.0, 0.0)
    ) -> Callable[[Tensor], Tensor]:
        """A function that moves the camera over latents' images: zoom above 1 magnifies."""
        size = self.tokenizer.image_size
        motion = torch.tensor(
            [[1 / zoom, 0, 2 * pan[0]], [0, 1 / zoom, 2 * pan[1]], [0, 0, 1]], device=self.device
        )

        def move(latents: Float[Tensor, "b d g g"]) -> Float[Tensor, "b d g g"]:
            images = self.decode(latents)
            return self.from_pixels(warp(images, motion.expand(len(images), 3, 3), size))

        return move
