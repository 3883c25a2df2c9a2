"""Tensors of untrusted torch files as arrays: a tensor is a claim about a storage, which is checked before it is copied."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem import files
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


def load_torch(path: Path, limit: int = files.MAX_ARRAY_BYTES) -> Any:
    """Return what ``torch.save`` wrote, without executing anything of it; tensors stay on the CPU.

    The caller checks ``numel()`` before it copies a tensor: a view can claim far more elements than its storage holds.

    Raises
    ------
    InputError
        If the file is too large, packed to more than ``limit`` bytes, no torch file, or holds anything but plain data.
    """
    import pickle

    import torch

    files.size(path, limit)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise InputError(f"file {path} is no torch file, or truncated; one in torch.save's zip form is needed") from None
    if unpacked > limit:
        raise InputError(f"file {path} unpacks to {unpacked} bytes; at most {limit} are read")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"file {path} holds pickled objects; tensors, numbers, strings, lists and dicts are read") from None
    except Exception as error:  # whatever a broken file makes torch's reader raise: its kinds are not documented
        raise InputError(f"file {path} is no readable torch file ({reason(error)})") from None
