"""How the transformer's output becomes a code: its logits, and one draw for the decoding engine."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from dalle_mini_impl.models.transformer import Linear

Choose = Callable[[Tensor, Tensor], Tensor]
"""From logits of all rows (`rows k`) and a uniform number of each picture (`b`), a choice (`b`).

The rows are the pictures', or with guidance twice as many: conditional, then null. How they are
combined, filtered and drawn from is the caller's.
"""


class CodeHead(Linear):
    """One softmax over all codes.

    What the decoding engine asks of a head: `draws`, the uniform numbers that it takes for each
    code, and `draw`.
    """

    draws = 1

    def __init__(self, width: int, code_count: int):
        super().__init__(width, code_count, bias=False)

    def draw(
        self, hidden: Float[Tensor, "rows c"], uniform: Float[Tensor, "b draws"], choose: Choose
    ) -> Int[Tensor, "b"]:
        """The next code of each picture; hidden: the last position's normalised output."""
        return choose(self(hidden), uniform[:, 0])
