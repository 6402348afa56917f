"""The peers, what they need to run today, and how to install those that are missing.

`transformers` (a Llama of the same shape) needs nothing.

`dalle-pytorch` 1.6.6 imports at its top what neither its `DALLE` nor its `DiscreteVAE` uses and
what need not be installed for them. Empty modules take the place of those that are missing:

- `pkg_resources`, which setuptools no longer has: asked for the package's own version;
- `taming` and `omegaconf`: other people's VQGANs;
- `requests`: downloads of their weights.

Its arithmetic is left alone, with one exception that is measured as a contender of its own:
`generate_images(use_cache=True)` builds a cache, but at guidance 1 `forward_with_cond_scale` calls
the model without it, so that every code runs the whole sequence again. "cache repaired" passes it
on.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.ours import count, matrices
from benchmarks.shape import Shape, Work

LLAMA = "Llama (transformers)"
DALLE = "DALLE-pytorch"
LLAMAGEN = "LlamaGen"
INSTALL = {
    LLAMA: "pip install transformers",
    DALLE: "pip install --no-deps dalle-pytorch rotary-embedding-torch axial-positional-embedding",
    LLAMAGEN: "git clone https://github.com/FoundationVision/LlamaGen, then add it to PYTHONPATH",
}
MODULES = {
    LLAMA: ("transformers",),
    DALLE: ("dalle_pytorch", "rotary_embedding_torch", "axial_positional_embedding"),
    LLAMAGEN: ("autoregressive.models.gpt",),
}


@dataclass(frozen=True)
class Absent:
    """A peer that is not installed."""

    peer: str
    install: str
    """The command that would install it."""


def absent() -> list[Absent]:
    """The peers that are not installed here."""
    return [
        Absent(peer, INSTALL[peer])
        for peer, modules in MODULES.items()
        if not all(_installed(module) for module in modules)
    ]


def present(peer: str) -> bool:
    """Whether a peer is installed."""
    return all(missing.peer != peer for missing in absent())


def import_dalle_pytorch() -> ModuleType:
    """The package, with stand-ins for what it imports and does not use."""

    class Unused:
        """Takes the place of a class that is only named in type checks."""

    def version(name: str) -> SimpleNamespace:
        return SimpleNamespace(version=name)

    _stand_in("pkg_resources", get_distribution=version)
    _stand_in("requests")
    _stand_in("omegaconf", OmegaConf=Unused)
    if not _installed("taming"):
        for name in ("taming", "taming.models"):
            _stand_in(name)
        _stand_in("taming.models.vqgan", VQModel=Unused, GumbelVQ=Unused)
    return import_module("dalle_pytorch")


def build_llama(shape: Shape, device: torch.device) -> tuple[nn.Module, Work]:
    """A Llama over one vocabulary of caption tokens and codes."""
    transformers = import_module("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=shape.text_vocabulary + shape.codes,
        hidden_size=shape.width,
        intermediate_size=shape.ffn_width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.tokens + 1,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config).to(device)
    head = model.lm_head.weight.numel()
    return model, Work(count(model), matrices(model.model.layers), head, head, shape.width)


def llama_decoder(
    model: Any, shape: Shape, compiled: bool = False
) -> Callable[[Tensor, int, float], Tensor]:
    """Its `generate` with the static cache, sampling from all logits; eager or compiled."""
    options: dict[str, Any] = {
        "max_new_tokens": shape.image,
        "min_new_tokens": shape.image,
        "do_sample": True,
        "top_k": 0,
        "cache_implementation": "static",
    }
    if compiled:
        configuration = import_module("transformers.generation.configuration_utils")
        options["compile_config"] = configuration.CompileConfig(fullgraph=False, dynamic=False)
        # Private to transformers, which otherwise compiles on accelerators alone.
        options["compile_config"]._compile_all_devices = True

    @torch.inference_mode()
    def run(captions: Tensor, images: int, guidance: float) -> Tensor:
        ids = captions.repeat_interleave(images // len(captions), dim=0)
        seen = torch.ones_like(ids)
        guided = {}
        if guidance != 1:
            guided = {
                "guidance_scale": guidance,
                "negative_prompt_ids": torch.zeros_like(ids),
                "negative_prompt_attention_mask": seen,
            }
        found = model.generate(ids, attention_mask=seen, **guided, **options)
        return found[:, shape.text :]

    return run


def build_dalle_pytorch(shape: Shape, device: torch.device) -> tuple[nn.Module, Work]:
    """Its `DALLE` with its own defaults for all that the shape leaves open.

    It wants an image tokenizer, of which the smallest will do: nothing of it is measured.
    """
    package = import_dalle_pytorch()
    torch.manual_seed(0)
    vae = package.DiscreteVAE(
        image_size=8 * shape.grid,
        num_layers=3,
        num_tokens=shape.codes,
        codebook_dim=8,
        hidden_dim=8,
    )
    model = package.DALLE(
        dim=shape.width,
        vae=vae,
        num_text_tokens=shape.text_vocabulary,
        text_seq_len=shape.text,
        depth=shape.depth,
        heads=shape.heads,
        dim_head=shape.width // shape.heads,
    ).to(device)
    blocks = sum(p.numel() for p in model.transformer.layers.parameters() if p.ndim == 2)
    head = model.to_logits[1].weight.numel()
    return model, Work(count(model), blocks, head, head, shape.width)


def dalle_pytorch_decoder(model: Any, repaired: bool) -> Callable[[Tensor, int, float], Tensor]:
    """Its `generate_images` with `use_cache=True`; repaired: at guidance 1 the cache is used."""

    def cached(*inputs: Any, cond_scale: float, cache: Any = None, **rest: Any) -> Tensor:
        return model(*inputs, cache=cache, **rest)

    def keep_codes(codes: Tensor) -> Tensor:
        return codes

    @torch.inference_mode()
    def run(captions: Tensor, images: int, guidance: float) -> Tensor:
        text = captions.repeat_interleave(images // len(captions), dim=0)
        own = model.forward_with_cond_scale
        model.vae.decode = keep_codes  # as for the others, codes are what is asked for
        if repaired:
            model.forward_with_cond_scale = cached
        try:
            return model.generate_images(text, cond_scale=guidance, use_cache=True)
        finally:
            model.forward_with_cond_scale = own

    return run


def _installed(module: str) -> bool:
    try:
        return module in sys.modules or find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _stand_in(name: str, **names: object) -> None:
    if not _installed(name):
        module = ModuleType(name)
        module.__dict__.update(names)
        sys.modules[name] = module
