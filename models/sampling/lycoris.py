"""LoHa and LoKr, the forms of LyCORIS (arXiv:2309.14859): the update of a layer's weight, and a LoRA equal to it.

LoHa: dW = (W1a W1b) * (W2a W2b), element by element.
LoKr: dW = W1 (x) W2, the Kronecker product; either factor may be a product of two matrices.
With a core T (Tucker, for convolutions) a product is  sum_ij T_ij.. A_ip B_jr  in place of  sum_i A_pi B_ir.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

BEGINNINGS = ("hada_", "lokr_")  # of the names of a layer's tensors


def is_lycoris(part: str) -> bool:
    """Whether a tensor of this name, the end of its key, belongs to a LoHa or a LoKr."""
    return part.startswith(BEGINNINGS)


def layer_update(parts: Mapping[str, Tensor]) -> tuple[Tensor, int | None]:
    """The update of one layer before its strength alpha / rank, in float32, and its rank.

    Args:
        parts: all tensors of the layer but alpha, by the end of their keys (`hada_w1_a`, `lokr_w2`, ...).

    Returns:
        dW of (out, in) or (out, in, height, width); a convolution's may also be flat, (out, in * height * width). The
        rank is None for a LoKr of two whole factors, which has the strength 1.

    Raises:
        ValueError: a tensor is missing, not part of the form, or of a size that does not fit the others.
    """
    parts = {name: part.float() for name, part in parts.items()}
    if any(name.startswith("hada_") for name in parts):
        cores = {"hada_t1", "hada_t2"} if parts.keys() & {"hada_t1", "hada_t2"} else set()
        _check_names(parts, {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} | cores)
        first, second = _product(parts, "hada_w1", "hada_t1"), _product(parts, "hada_w2", "hada_t2")
        if first.shape != second.shape:
            raise ValueError(f"hada_w1 gives {tuple(first.shape)}, hada_w2 gives {tuple(second.shape)}")
        return first * second, parts["hada_w1_b"].shape[0]
    whole = [name for name in ("lokr_w1", "lokr_w2") if name in parts]
    split = [name for name in ("lokr_w1", "lokr_w2") if name not in parts]
    core = {"lokr_t2"} if "lokr_t2" in parts and "lokr_w2" in split else set()
    _check_names(parts, {*whole, *(f"{name}_{side}" for name in split for side in "ab")} | core)
    first = parts["lokr_w1"] if "lokr_w1" in parts else _product(parts, "lokr_w1", None)
    second = parts["lokr_w2"] if "lokr_w2" in parts else _product(parts, "lokr_w2", "lokr_t2")
    if first.ndim != 2 or second.ndim not in (2, 4):
        raise ValueError(f"lokr_w1 has {first.ndim} dimensions, lokr_w2 has {second.ndim}; expected 2, and 2 or 4")
    if 0 in (*first.shape, *second.shape):
        raise ValueError(f"lokr_w1 is {tuple(first.shape)}, lokr_w2 is {tuple(second.shape)}; expected no empty tensor")
    first = first.reshape(*first.shape, *(1,) * (second.ndim - 2))
    return torch.kron(first, second.contiguous()), parts[f"{split[0]}_b"].shape[0] if split else None


def as_lora(update: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The first and second matrix of a LoRA whose product is the update; one of them is the identity.

    Args:
        update: of (out, ...).
        shape: of the layer's weight, (out, in) or (out, in, height, width).

    Raises:
        ValueError: the update is not of this shape.
    """
    if update.shape[0] != shape[0] or update.numel() != torch.Size(shape).numel():
        raise ValueError(f"its update is {tuple(update.shape)}, the layer is {tuple(shape)}")
    outside, inside = shape[0], update[0].numel()
    ones = (1,) * (len(shape) - 2)
    if outside <= inside:
        return update.reshape(shape), torch.eye(outside).reshape(outside, outside, *ones)
    return torch.eye(inside).reshape(inside, *shape[1:]), update.reshape(outside, inside, *ones)


def _check_names(parts: Collection[str], expected: Collection[str]) -> None:
    if missing := sorted(set(expected) - set(parts)):
        raise ValueError(f"{', '.join(missing)} is missing")
    if unknown := sorted(set(parts) - set(expected)):
        raise ValueError(f"{', '.join(unknown)} is not part of this form")


def _product(parts: Mapping[str, Tensor], name: str, core_name: str | None) -> Tensor:
    first, second = parts[f"{name}_a"], parts[f"{name}_b"]
    core = None if core_name is None else parts.get(core_name)
    if first.ndim != 2 or second.ndim != 2 or 0 in (*first.shape, *second.shape):
        raise ValueError(f"{name}_a is {tuple(first.shape)}, {name}_b is {tuple(second.shape)}; expected matrices")
    if core is None:
        if first.shape[1] != second.shape[0]:
            raise ValueError(f"{name}_a is {tuple(first.shape)}, {name}_b is {tuple(second.shape)}")
        return first @ second
    if core.ndim != 4 or core.shape[:2] != (first.shape[0], second.shape[0]):
        raise ValueError(f"{core_name} is {tuple(core.shape)}, not ({first.shape[0]}, {second.shape[0]}, h, w)")
    return torch.einsum("ijhw,ip,jr->prhw", core, first, second)
