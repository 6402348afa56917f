"""What a training step frees stays with the process."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from dalle_mini_impl.kernels.allocator import keep_freed_memory

FAULTS = """
import resource
import sys
import torch
from dalle_mini_impl.kernels.allocator import keep_freed_memory

def step():
    kept = [torch.ones(2**21) for _ in range(4)]  # 8 MiB each
    del kept

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(4):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode):
    command = [sys.executable, "-c", FAULTS, mode]
    # Left alone, glibc decides for itself; so it gives back every large block.
    given_back = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=given_back)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_step_does_not_ask_the_system_for_what_the_last_one_freed(fast_kernels):
    assert page_faults("keep") < page_faults("give back") / 10


def test_the_environment_leaves_the_allocator_alone(plain_kernels, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", None)
    keep_freed_memory()
