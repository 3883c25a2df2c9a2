from __future__ import annotations

import numpy as np
import pytest
import torch

from eplb_gap.heuristics.tensors import as_weight
from eplb_gap.problem import InputError


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.float16, torch.bfloat16])
def test_weights_of_any_type_arrive_in_full_width(dtype):
    weight = as_weight(torch.ones(2, 3, dtype=dtype, requires_grad=dtype.is_floating_point), "weight", "layers, experts")
    assert weight.tolist() == [[1, 1, 1]] * 2
    assert weight.dtype == (np.float64 if dtype.is_floating_point else np.int64)


@pytest.mark.parametrize("value", [torch.ones(2, 0), torch.ones(2, 3, dtype=torch.complex64), torch.tensor(1.0)])
def test_weights_that_are_none_are_refused(value):
    with pytest.raises(InputError, match=r"weight is .*; real numbers"):
        as_weight(value, "weight", "layers, experts")
