"""LlamaGen's text-conditional transformer at a given shape, sampled by its own `generate`.

It is not a package: clone the repository and add its folder to PYTHONPATH.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.ours import count, matrices
from benchmarks.shape import Shape, Work


def build(shape: Shape, device: torch.device) -> tuple[nn.Module, Work]:
    """Its `Transformer` over captions that come as feature vectors of the model's width."""
    gpt = import_module("autoregressive.models.gpt")
    torch.manual_seed(0)
    # Its feed-forward width is 8/3 of the width, rounded up to `multiple_of`.
    arguments = gpt.ModelArgs(
        dim=shape.width,
        n_layer=shape.depth,
        n_head=shape.heads,
        multiple_of=16,
        vocab_size=shape.codes,
        block_size=shape.image,
        cls_token_num=shape.text,
        caption_dim=shape.width,
        model_type="t2i",
    )
    model = gpt.Transformer(arguments)
    # The length of its null caption is fixed at 120 otherwise.
    model.cls_embedding.uncond_embedding = torch.randn(shape.text, shape.width)
    head = model.output.weight.numel()
    work = Work(count(model), matrices(model.layers), head, 0, shape.width)
    return model.to(device), work


def decoder(model: Any, shape: Shape) -> Callable[[Tensor, int, float], Tensor]:
    """Its `generate` with the static cache; caption ids stand for random features."""
    generate = import_module("autoregressive.models.generate").generate
    weight = model.tok_embeddings.weight

    @torch.inference_mode()
    def run(captions: Tensor, images: int, guidance: float) -> Tensor:
        features = torch.randn(
            images, shape.text, shape.width, device=captions.device, dtype=weight.dtype
        )
        return generate(model, features, shape.image, cfg_scale=guidance)

    return run
