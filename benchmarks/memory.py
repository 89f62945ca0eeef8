"""The memory plan of full-size training, counted without a GPU: `python -m benchmarks.memory > plan.md`.

One training step of the real networks (SD 1.5, the authors' ControlNets) runs on tensors without data; every storage
that is alive is counted, as an allocator would have to hold it. Attention saves what FlashAttention saves. What a GPU
adds is not counted: the CUDA context, the allocator's fragments, the work space of its libraries.
"""

import argparse
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.denoising.denoiser import (
    denoise,
    first_frame_condition,
    image_residuals,
    motion_residuals,
    repeat_per_frame,
)
from models.denoising.loss import squared_error
from models.lora.sets import train_only
from models.modes import LORAS
from models.networks.gradient_checkpointing import checkpoint_blocks
from models.origins.official import CODEC_FACTOR, SD15, empty_networks

GB = 2**30
TEXT_LENGTH = 77
GPU = 1.5  # GB: context (0.5) and 10 % of fragments, a rule of thumb
COLUMNS = "what | batch | checkpointed | frozen | trained | gradients, AdamW, EMA | the rest at the peak | sum | + GPU"


class LiveMemory(TorchDispatchMode):
    """Bytes of all storages that are alive, now and at most, of those that operations made while it was active."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **kwargs or {})
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.count(tensor)
        return made

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            self._change(storage.nbytes())
            weakref.finalize(storage, self._change, -storage.nbytes())

    def _change(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


@dataclass
class Plan:
    """Bytes of one step at its peak: frozen weights, trained ones, their gradients, moments and average, and the rest.

    The rest is mostly activations; it is less than them by the gradients that are not there yet at the peak.
    """

    frozen: int
    trained: int
    states: int
    rest: int

    @property
    def total(self) -> int:
        return self.frozen + self.trained + self.states + self.rest


def plan(
    rank: int | None, batch: int, checkpointed: bool, frames: int = 16, height: int = 256, width: int = 384,
    sizes: dict | None = None,
) -> Plan:  # fmt: skip
    """Count one step of the motion ControlNet (rank None), or of the object LoRA beside a camera LoRA of that rank.

    The frozen networks are held in bfloat16, the motion ControlNet in float32, under autocast, as `stages.train.loop`
    does; its own first steps make the optimizer's states.
    """
    sizes = sizes or SD15
    networks = empty_networks(sizes, dict.fromkeys(LORAS, rank) if rank else {})
    with FakeTensorMode(), LiveMemory() as memory:
        for network in (networks.unet, networks.image_controlnet):
            _fill(network, torch.bfloat16)
        motion_controlnet = networks.motion_controlnet
        _fill(motion_controlnet, torch.float32)
        if rank:
            motion_controlnet.set_adapters(list(LORAS))
            parameters = train_only(motion_controlnet, "object")
        else:
            parameters = list(motion_controlnet.requires_grad_(True).parameters())
        if checkpointed:
            for network in (networks.unet, motion_controlnet):
                checkpoint_blocks(network)
        trained = sum(parameter.nbytes for parameter in parameters)
        frozen = memory.now - trained
        optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
        ema = EMAModel(parameters)
        for _ in range(2):
            before = memory.now
            memory.peak = before
            inputs = _inputs(sizes, batch, frames, height // CODEC_FACTOR, width // CODEC_FACTOR)
            _step(networks, inputs, parameters, optimizer, ema)
            del inputs
        gradients = trained
        states = before - frozen - trained + gradients
    return Plan(frozen, trained, states, memory.peak - before - gradients)


def _step(networks, inputs: dict[str, Tensor], parameters, optimizer, ema: EMAModel) -> None:
    z, text, timesteps = inputs["z"], inputs["text"], inputs["timesteps"]
    frames = z.shape[2]
    with torch.autocast("cpu", torch.bfloat16), _norms_as_on_a_gpu():
        with torch.no_grad():
            image = image_residuals(
                networks.image_controlnet, timesteps, text, *first_frame_condition(z[:, :, 0], frames)
            )
        motion = motion_residuals(networks.motion_controlnet, timesteps, text, inputs["condition"])
        prediction = denoise(networks.unet, z, timesteps, text, z[:, :, 0], image + motion)
        loss = squared_error(prediction, z)
        loss.backward()  # within: checkpointed blocks are made again here
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    ema.step(parameters)


@contextmanager
def _norms_as_on_a_gpu() -> Iterator[None]:
    """Autocast of a GPU takes norms in float32, that of a CPU does not; float32 costs twice the memory."""

    def exact(norm):
        return lambda x, *args, **kwargs: norm(x.float(), *args, **kwargs)

    with patch.multiple(F, group_norm=exact(F.group_norm), layer_norm=exact(F.layer_norm)):
        yield


def _inputs(sizes: dict, batch: int, frames: int, h: int, w: int) -> dict[str, Tensor]:
    text = torch.randn(batch, TEXT_LENGTH, sizes["cross_attention_dim"])
    return {
        "z": torch.randn(batch, sizes["in_channels"], frames, h, w),
        "condition": torch.randn(batch, 2 * CODEC_FACTOR**2, frames, h, w),
        "text": repeat_per_frame(text, frames),
        "timesteps": torch.zeros(batch, dtype=torch.long),
    }


def _fill(network: nn.Module, dtype: torch.dtype) -> None:
    """Put tensors without data, but of a size that counts, in place of those on the meta device."""
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(torch.empty(parameter.shape, dtype=dtype), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=dtype)


def row(name: str, rank: int | None, batch: int, checkpointed: bool) -> str:
    made = plan(rank, batch, checkpointed)
    parts = [made.frozen, made.trained, made.states, made.rest, made.total]
    cells = [f"{part / GB:.2f}" for part in parts]
    return " | ".join([name, str(batch), "yes" if checkpointed else "no", *cells, f"{made.total / GB + GPU:.1f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    print(f"| {COLUMNS} |\n|{' --- |' * (COLUMNS.count('|') + 1)}")
    for name, rank in (("motion ControlNet", None), (f"LoRA, rank {options.rank}", options.rank)):
        for batch in options.batches:
            for checkpointed in (True, False):
                print(f"| {row(name, rank, batch, checkpointed)} |", flush=True)


if __name__ == "__main__":
    main()
