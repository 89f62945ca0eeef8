"""A GPU without a GPU: tensors that know the device `cuda:0`, and compute on the CPU.

with pretended_gpu() as gpu:
    network.to("cuda")          # weights report the device cuda:0
    network(torch.zeros(1, 3))  # DeviceMix: addmm: cuda:0 and cpu tensors

Inside, `torch.cuda.is_available()` is true, and whatever asks torch for a GPU gets this one. Each operation checks what
CUDA checks: its tensors lie on one device, and NumPy sees CPU tensors only. Autocast casts what CUDA's autocast
casts. torch's own FakeTensor finds mixed devices too, but it holds no values, and whole stages need values.

With `gpu.precision`, matrix products and convolutions in the forward pass of a network must compute in this precision:
float32 in a network that was asked for bf16 is an error, `SilentUpcast`. `gpu.asked` are the classes of networks asked.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")

# Operators of CUDA that take tensors of both devices: copies, and indices on the CPU.
INDEXED = {"index", "index_put_", "index_put", "_index_put_impl_"}
ACROSS = {"copy_", "_to_copy", *INDEXED}
# What autocast casts on CUDA, by the name of the function that Python calls (aten/src/ATen/autocast_mode.h).
LOWER = set(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d matmul mm bmm addmm addbmm baddbmm "
    "mv einsum scaled_dot_product_attention __matmul__ __rmatmul__ prelu".split()
)
FULL = set(
    "group_norm layer_norm softmax log_softmax mse_loss l1_loss exp log pow __pow__ rsqrt norm sum prod cumsum "
    "softplus cosine_similarity reciprocal".split()
)
HEAVY = {  # operators that cost time; networks should compute them in the precision that was asked for
    torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm, torch.ops.aten.convolution,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, torch.ops.aten._scaled_dot_product_attention_math,
}  # fmt: skip


class DeviceMix(RuntimeError):
    """An operation on tensors of the CPU and of the GPU, or one that only the CPU can do. CUDA refuses it as well."""


class SilentUpcast(RuntimeError):
    """A network computes in float32 although a lower precision was asked for."""


class OnGpu(Tensor):
    """A tensor of the pretended GPU around a CPU tensor. torch itself takes it for a CPU tensor without storage."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnGpu":
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype
        )
        made.inner = inner
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], context: None, size: Any, stride: Any) -> "OnGpu":
        return OnGpu(parts["inner"])

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnGpu({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _GPUS[-1].compute(function, args, kwargs or {})


class PretendedGpu:
    """precision: of networks, checked if given. asked: classes of the networks that were asked for it.

    computed: names of operators that ran on the GPU. Tests look at it to know that something did.
    """

    def __init__(self) -> None:
        self.precision: torch.dtype | None = None
        self.asked: tuple[type, ...] = (nn.Module,)
        self.computed: set[str] = set()
        self.inside: list[nn.Module] = []  # modules whose forward pass is under way
        self.ambient: list[bool] = [False]  # whether the function under way works on the GPU

    def call(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A function that Python calls: properties and moves that torch would take for the CPU's, and autocast."""
        name = getattr(function, "__name__", "")
        if name == "__get__":
            known = _PROPERTIES.get(function.__self__) if type(args[0]) is OnGpu else None
            return known(args[0]) if known else function(*args, **kwargs)
        on_gpu = any(type(each) is OnGpu for each in _tensors(args, kwargs))
        if on_gpu:
            if name in ("numpy", "__array__", "__dlpack__"):
                raise DeviceMix(f"{name}: can't convert a tensor on {GPU} to NumPy; use .cpu() first")
            if name == "__repr__":
                return OnGpu.__repr__(args[0])
            if name in ("tolist", "untyped_storage", "data_ptr"):
                return getattr(args[0].detach().inner, name)()
        if name in ("to", "cuda", "cpu", "type_as") and isinstance(args[0], Tensor):
            return _moved(name, *args, **kwargs)
        if kwargs.get("device") is not None:
            kwargs = kwargs | {"device": _complete(kwargs["device"])}
            if name in ("tensor", "as_tensor", "asarray") and kwargs["device"] == GPU:  # made on the CPU, then moved
                return function(*args, **{**kwargs, "device": None}).to(GPU)
        if on_gpu and torch.is_autocast_enabled("cuda"):
            args, kwargs = _autocast(name, args, kwargs)
        self.ambient.append(on_gpu)
        try:
            return function(*args, **kwargs)
        finally:
            self.ambient.pop()

    def compute(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """One operator: check devices and precision, compute on the CPU, label the result."""
        tensors = _tensors(args, kwargs)
        on_gpu = [each for each in tensors if type(each) is OnGpu]
        name = function.overloadpacket.__name__
        if on_gpu and name not in ACROSS and any(type(each) is not OnGpu and each.ndim for each in tensors):
            raise DeviceMix(f"{name}: expected all tensors to be on the same device, found {GPU} and cpu")
        if name in INDEXED and type(args[0]) is not OnGpu and any(type(each) is OnGpu for each in args[1]):
            raise DeviceMix(f"{name}: indices should be on the CPU, as the indexed tensor is")
        # an operator within a function may name the CPU, which torch takes these tensors to be on
        asked = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda"
        if "device" in kwargs:
            kwargs = kwargs | {"device": CPU}
        if not on_gpu:
            result = function(*args, **kwargs)
            return _mapped(OnGpu, result) if asked or (not tensors and self.ambient[-1]) else result
        self.computed.add(name)
        if self.precision is not None and function.overloadpacket in HEAVY:
            self._check_precision(name, on_gpu)
        wrappers = {id(each.inner): each for each in on_gpu}
        result = function(*_mapped(_inner, args), **_mapped(_inner, kwargs))

        def labelled(tensor: Tensor) -> Tensor:
            known = wrappers.get(id(tensor))  # an operator that works in place returns what it was given
            return OnGpu(tensor) if known is None else known

        return _mapped(labelled, result)

    def _check_precision(self, name: str, tensors: list["OnGpu"]) -> None:
        if not any(isinstance(each, self.asked) for each in self.inside):
            return
        used = {each.dtype for each in tensors if each.is_floating_point() and each.ndim}
        if used - {self.precision}:
            where = " > ".join(type(each).__name__ for each in self.inside)
            raise SilentUpcast(f"{name} in {where}: computes in {used}, asked for was {self.precision}")


def _tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors among arguments, also those in lists."""
    found: list[Tensor] = []
    for value in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(_tensors(value, {}))
    return found


def _mapped(change: Callable[[Tensor], Any], value: Any) -> Any:
    """The same lists, tuples and mappings with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if value is None or isinstance(value, int | float | str):
        return value
    if type(value) in (list, tuple):
        return type(value)([_mapped(change, each) for each in value])
    if isinstance(value, dict):
        return {key: _mapped(change, each) for key, each in value.items()}
    return value


_GPUS: list[PretendedGpu] = []


class _Functions(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _GPUS[-1].call(function, args, kwargs or {})


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _GPUS[-1].compute(function, args, kwargs or {})


class _Move(torch.autograd.Function):
    """A copy on the other device; its gradient goes back."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, to_gpu: bool) -> Tensor:
        context.from_gpu = isinstance(tensor, OnGpu)
        return OnGpu(tensor.detach().clone()) if to_gpu else _inner(tensor.detach()).clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return _Move.apply(gradient, context.from_gpu), None


def _moved(name: str, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`Tensor.to`, `.cuda`, `.cpu` and `.type_as`, which torch would decide by the device that it sees."""
    here = isinstance(tensor, OnGpu)
    there, dtype = here, kwargs.get("dtype")
    if name in ("cuda", "cpu"):
        there = name == "cuda"
    for each in [kwargs.get("device"), kwargs.get("other"), *(args if name in ("to", "type_as") else ())]:
        if isinstance(each, Tensor):
            there, dtype = isinstance(each, OnGpu), each.dtype
        elif isinstance(each, torch.dtype):
            dtype = each
        elif isinstance(each, str | torch.device):
            there = _complete(each).type == "cuda"
    if there != here:
        tensor = _Move.apply(tensor, there)
    rest = {key: value for key, value in kwargs.items() if key in ("copy", "memory_format")}
    return tensor if dtype is None and not rest else Tensor.to(tensor, dtype=dtype or tensor.dtype, **rest)


def _complete(device: Any) -> torch.device:
    """The device, with its number: without one torch would ask the driver."""
    found = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return GPU if found.type == "cuda" else found


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, OnGpu) else value


def _autocast(name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
    dtype = torch.get_autocast_dtype("cuda") if name in LOWER else torch.float32 if name in FULL else None
    if dtype is None:
        return args, kwargs

    def cast(value: Tensor) -> Tensor:
        return value.to(dtype) if isinstance(value, OnGpu) and value.is_floating_point() else value

    return _mapped(cast, (args, kwargs))


def _refuse_to_start_every_gpu(device: Any = None) -> None:
    raise RuntimeError("fork_rng without devices=[] takes memory on every GPU of the machine, in every process")


_PROPERTIES: dict[Any, Callable[[Tensor], Any]] = {
    Tensor.device: lambda tensor: GPU,
    Tensor.is_cuda: lambda tensor: True,
    Tensor.is_cpu: lambda tensor: False,
}


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """For a while, torch has one GPU, which is the CPU under another name."""
    gpu = PretendedGpu()
    _GPUS.append(gpu)
    entered = hooks.register_module_forward_pre_hook(lambda module, given: gpu.inside.append(module))
    left = hooks.register_module_forward_hook(lambda module, given, made: gpu.inside.remove(module), always_call=True)
    load, save = torch.load, torch.save

    @functools.wraps(load)
    def loaded(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
        held = load(file, map_location="cpu", **kwargs)
        return _mapped(lambda each: each.to(map_location), held) if map_location else held

    @functools.wraps(save)
    def saved(held: Any, *args: Any, **kwargs: Any) -> None:
        save(_mapped(lambda each: each.detach().cpu(), held), *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "is_available": True, "device_count": 1, "current_device": 0, "is_initialized": False, "_lazy_init": None,
            "is_bf16_supported": True, "synchronize": None, "empty_cache": None, "set_device": None,
            "get_device_name": "pretended", "manual_seed_all": None,
        }.items():  # fmt: skip
            patch.setattr(torch.cuda, name, lambda *args, _value=value, **kwargs: _value)
        patch.setattr(torch.cuda, "get_rng_state", _refuse_to_start_every_gpu)
        patch.setattr(PartialState, "default_device", property(lambda self: GPU))
        patch.setattr(torch, "load", loaded)
        patch.setattr(torch, "save", saved)
        try:
            with _Operators(), _Functions():
                yield gpu
        finally:
            entered.remove()
            left.remove()
            _GPUS.pop()
