"""Tensors are identified by a digest; tests/runs/test_folder.py tests how files are written."""

import torch

from dalle_mini_impl.runs.weights import tensor_digest


def test_a_digest_depends_on_names_types_shapes_and_values_only():
    values = torch.arange(6.0).reshape(2, 3)
    digest = tensor_digest({"a": values, "b": torch.ones(2)})
    column_major = torch.arange(6.0).reshape(2, 3).T.contiguous().T
    assert tensor_digest({"b": torch.ones(2), "a": column_major.requires_grad_()}) == digest
    others = [values + 1, values.double(), values.reshape(3, 2), values.bfloat16()]
    digests = {tensor_digest({"a": other, "b": torch.ones(2)}) for other in others}
    digests.add(tensor_digest({"c": values, "b": torch.ones(2)}))
    assert len(digests | {digest}) == 6
