"""Gradient checkpointing: a block's activations are recomputed in the backward pass instead of being kept.

diffusers' own switch covers only resnets. This one also covers attention and motion modules, which hold most
activations. The authors' code does the same.
"""

from functools import partial

from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn
from torch.utils.checkpoint import checkpoint

BLOCKS = (ResnetBlock2D, Transformer2DModel, AnimateDiffTransformer3D)


def checkpoint_blocks(network: nn.Module) -> int:
    """Checkpoint every resnet, attention and motion block of a network for good. Returns the number of blocks.

    Gradients stay the same bit for bit: the networks draw no random numbers.
    """
    blocks = [module for module in network.modules() if isinstance(module, BLOCKS)]
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    return len(blocks)
