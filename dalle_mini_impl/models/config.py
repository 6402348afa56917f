"""Settings of the transformer and of CLIP; `--help` reads them without importing torch."""

from typing import Literal

from pydantic import Field

from dalle_mini_impl.config import Config, TrainingConfig

BlockKind = Literal["modern", "dalle"]


class TransformerConfig(Config):
    """The transformer: its size, its blocks and how its two losses are weighed."""

    depth: int = Field(6, gt=0, le=256)
    """Number of blocks."""
    width: int = Field(192, gt=0, le=2**16)
    """Channels of the residual stream."""
    heads: int = Field(4, gt=0, le=1024)
    """Attention heads; they divide the width."""
    ffn_width: int = Field(512, gt=0, le=2**18)
    """Channels inside each feed-forward layer."""
    block: BlockKind = "modern"
    """modern: RMSNorm, QK-norm, rotary positions, SwiGLU. dalle: the paper's LayerNorm and GELU."""
    attention: Literal["full", "dalle"] = "full"
    """full causal attention, or the paper's row, column and convolution patterns."""
    upper_neighbor: bool = True
    """Add the embedding of the code above the one to be predicted to each image position."""
    preceding_tokens: int = Field(5, ge=0, le=64)
    """Each text token adds embeddings of this many tokens before it."""
    max_image_tokens: int = Field(1024, gt=0, le=2**20)
    """Most codes an image may have: a grid beyond it is refused before memory runs out."""
    text_weight: float = Field(0.125, ge=0, le=1)
    """Share of the text loss in the sum; the image loss has the rest (the paper: 1/8 and 7/8)."""
    caption_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of captions replaced by the null caption, for classifier-free guidance."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of embeddings and of the outputs of attention and feed-forward layers."""
    stochastic_depth: float = Field(0.0, ge=0, lt=1)
    """Share of examples that skip the last block's layers; it rises linearly from the first."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each image code's target that is spread over all codes."""
    code_replacement: float = Field(0.0, ge=0, lt=1)
    """Share of codes that are read as random other codes of the batch; targets stay."""
    caption_token_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of caption tokens that are read as padding; targets stay."""
    posterior_temperature: float = Field(0.0, ge=0, le=100)
    """Temperature of codes drawn from the dVAE's posterior; 0 takes the most likely codes."""
    encodings: int = Field(4, ge=1, le=1024)
    """Encodings of each image where crops, shifts, flips or a posterior make them differ."""
    checkpoint_activations: bool = False
    """Compute blocks again in the backward pass instead of keeping what they computed."""
    training: TrainingConfig = TrainingConfig()
    """How it is trained."""


class ClipConfig(Config):
    """The two towers and the loss that joins them."""

    embedding: int = Field(192, gt=0, le=2**16)
    """Channels of the shared unit vectors."""
    image_width: int = Field(64, gt=0, le=2**13)
    """Channels of the image tower's first stage; each later stage doubles them."""
    image_stages: int = Field(3, gt=0, le=12)
    """Stages of the image tower, each at half the side of the one before."""
    image_blocks: int = Field(2, gt=0, le=256)
    """Residual blocks in each stage."""
    patch: int = Field(4, gt=0, le=1024)
    """Side of the pixel blocks that the first convolution sees as channels."""
    text_width: int = Field(128, gt=0, le=2**16)
    """Channels of the text tower."""
    text_depth: int = Field(3, gt=0, le=256)
    """Blocks of the text tower."""
    text_heads: int = Field(4, gt=0, le=1024)
    """Attention heads of the text tower; they divide its width."""
    preceding_tokens: int = Field(5, ge=0, le=64)
    """Each token of the text tower adds embeddings of this many tokens before it."""
    loss: Literal["infonce", "siglip"] = "infonce"
    """Softmax over the batch both ways, or SigLIP's independent sigmoids."""
    hard_negatives: int = Field(1, ge=0, le=1024)
    """Captions with one attribute swapped that each image must also be distinguished from."""
    reconstructions: float = Field(0.5, ge=0, le=1)
    """Share of training images shown as the image tokenizer decodes them."""
    training: TrainingConfig = TrainingConfig(max_grad_norm=1.0)
    """How it is trained."""
