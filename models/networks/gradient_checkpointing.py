"""Gradient checkpointing: a block's activations are made again on the way back instead of being kept.

diffusers' own switch covers resnets alone; attention and motion modules, which hold most activations, are covered here
too, as in the authors' code.
"""

from functools import partial

from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn
from torch.utils.checkpoint import checkpoint

BLOCKS = (ResnetBlock2D, Transformer2DModel, AnimateDiffTransformer3D)


def checkpoint_blocks(network: nn.Module) -> int:
    """Checkpoint every resnet, attention and motion block of a network, for as long as it lives; how many there are.

    Gradients stay the same bit for bit: the networks draw no random numbers.
    """
    blocks = [module for module in network.modules() if isinstance(module, BLOCKS)]
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    return len(blocks)
