"""Tensors of untrusted torch files as arrays: a tensor is a claim about a storage, which is checked before it is copied."""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError, reason
from eplb_gap.problem.formats.containers.limits import check_elements


def tensor_array(value: Any, where: str, ndim: int) -> np.ndarray:
    """Return a plain tensor of ``ndim`` axes as an array of its own type.

    Raises
    ------
    InputError
        If it is no tensor of integers or floats in memory, or it claims more elements than its storage holds.
    """
    import torch

    if type(value) is not torch.Tensor:
        raise InputError(f"{where} is a {type(value).__name__}; a tensor is needed")
    plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_nested
    number = not (value.dtype.is_complex or value.is_quantized or value.dtype in (torch.bool, torch.bfloat16))
    if not plain or not number:
        raise InputError(f"{where} is a {value.dtype} tensor ({value.layout}, {value.device}); a plain one of integers is needed")
    if value.ndim != ndim or not value.numel():
        raise InputError(f"{where} has shape {tuple(value.shape)}; {ndim} non-empty axes are needed")
    check_elements(value.shape, where)
    held = value.untyped_storage().nbytes()
    if value.numel() * value.element_size() > held:
        raise InputError(f"{where} claims shape {tuple(value.shape)}, which its storage of {held} bytes does not hold")
    try:
        return np.asarray(value.numpy(force=True))
    except (TypeError, RuntimeError) as error:  # number types that NumPy has not
        raise InputError(f"{where} is no array of plain numbers ({reason(error)})") from None
