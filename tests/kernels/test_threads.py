"""Small work takes one thread, and the process keeps its number of threads."""

import pytest
import torch

from dalle_mini_impl.kernels.threads import SMALL_PRODUCT, threads_for


@pytest.fixture
def two_threads(fast_kernels):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("multiplications", "threads"), [(SMALL_PRODUCT, 1), (SMALL_PRODUCT + 1, 2)]
)
def test_small_work_takes_one_thread(two_threads, multiplications, threads):
    with threads_for(multiplications):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


def test_an_error_gives_the_threads_back(two_threads):
    with pytest.raises(KeyError), threads_for(1):
        raise KeyError
    assert torch.get_num_threads() == 2


def test_the_environment_leaves_the_threads_alone(two_threads, plain_kernels):
    with threads_for(1):
        assert torch.get_num_threads() == 2
