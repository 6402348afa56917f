"""The sampled candidates of a caption, as tensors with their scores."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.sampling.config import Ranking
from dalle_mini_impl.sampling.ranking import rank


@dataclass(frozen=True)
class Samples:
    """All candidates of one caption, in the order of their seeds."""

    caption: str
    seeds: tuple[int, ...]
    pixels: Float[Tensor, "b 3 h w"]
    """In [0, 1]."""
    codes: Int[Tensor, "b n"]
    log_likelihoods: Float[Tensor, "b"]
    """ln p(codes | caption), in nats."""
    log_likelihood_ratios: Float[Tensor, "b"]
    """ln p(codes | caption) - ln p(codes | null caption), in nats."""
    clip_scores: Float[Tensor, "b"] | None = None
    """Cosine similarity of image and caption in [-1, 1]; None where the run has no CLIP."""

    def __len__(self) -> int:
        return len(self.seeds)

    def order(self, ranking: Ranking, first: int | None = None) -> list[int]:
        """Indices of the first `first` candidates (all if not given), best first."""
        clip_scores = None if self.clip_scores is None else self.clip_scores[:first]
        likelihoods = self.log_likelihoods[:first], self.log_likelihood_ratios[:first]
        return rank(ranking, *likelihoods, clip_scores).tolist()
