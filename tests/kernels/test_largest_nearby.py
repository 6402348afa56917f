"""The fast maximum equals pooling."""

import pytest
import torch

from dalle_mini_impl.kernels.largest_nearby import largest_nearby


@pytest.mark.parametrize("reach", [1, 3, 5, 9])
def test_largest_nearby_is_max_pooling(reach: int) -> None:
    values = torch.rand(2, 3, 12, 17)
    pooled = torch.nn.functional.max_pool2d(values, reach, stride=1, padding=reach // 2)
    torch.testing.assert_close(largest_nearby(values, reach), pooled, rtol=0, atol=0)
