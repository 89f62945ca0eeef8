"""A start for pre-training: untrained networks that already predict the first frame, warped along the strokes.

The motion ControlNet is given latents of the warped first frame (`first_frame_latents`). From random weights it takes
hundreds of steps until they come out at the other end. Here a straight way is laid for them: condition embedding, the
residual for the first skip, the shortcut of the UNet's last block, its output layers. Everything on this way is linear
but for the last norm and SiLU, which are held where they are nearly linear. All weights stay free to be trained.
"""

from typing import Any

import torch

from models.networks.foundation import Foundation
from models.networks.networks import MotionControlNet

HELD = 6.0  # deviations: constant put beside the content, so that the last norm hardly depends on the content
BENT = 2.0  # where on SiLU the content is put; its slope there is 1.09, and nearly constant


@torch.no_grad()
def start_as_warp(foundation: Foundation, motion_controlnet: MotionControlNet) -> None:
    """Lay the way, in place; the networks then predict the warped first frame wherever a stroke is near.

    Raises:
        ValueError: the networks' first block has fewer channels than the latents, or its norm an odd number a group;
            or the condition has no `first_frame_latents`.
    """
    unet: Any = foundation.unet
    content = unet.config.out_channels
    width, groups = unet.config.block_out_channels[0], unet.conv_norm_out.num_groups
    condition, factor = list(motion_controlnet.config.condition), motion_controlnet.config.codec_factor
    if width < content or (width // groups) % 2 or content % (width // groups):
        raise ValueError(f"channels: {width} in {groups} groups cannot carry {content} latent channels")
    if "first_frame_latents" not in condition:
        raise ValueError("condition: a start as a warp needs first_frame_latents")
    first = 2 * factor**2 if condition[: condition.index("first_frame_latents")] == ["flow"] else 0
    _pass_on(motion_controlnet.controlnet_cond_embedding, content, first)
    if "first_frame_as_camera" in condition:  # a second picture to choose from, as far as there is room
        room = min(content, width - content)
        _pass_on(motion_controlnet.controlnet_cond_embedding, room, first + content + 1, content, clear=False)
    for network in (unet.conv_in, foundation.image_controlnet.controlnet_down_blocks[0], motion_controlnet.conv_in):
        _clear(network, content)
    _pass_on(motion_controlnet.controlnet_down_blocks[0], content, 0)
    block = unet.up_blocks[-1]
    _pass_on(block.resnets[-1].conv_shortcut, content, width)
    block.resnets[-1].conv2.weight.zero_()
    block.resnets[-1].conv2.bias.zero_()
    block.motion_modules[-1].proj_out.weight.zero_()
    block.motion_modules[-1].proj_out.bias.zero_()
    _hold(unet, content, foundation.latent_space.std)


def _hold(unet: Any, content: int, std: float) -> None:
    """Constants beside the content, so that norm, SiLU and output layer pass it on, divided by the latents' std."""
    signs = torch.tensor([1.0, -1.0]).repeat((content + 1) // 2)[:content]
    unet.up_blocks[-1].resnets[-1].conv_shortcut.bias[:content] = HELD * signs
    unet.conv_norm_out.weight[:content] = 1
    unet.conv_norm_out.bias[:content] = BENT - signs  # where nothing moves, the norm divides by HELD
    bent = torch.tensor(BENT)
    sigmoid = bent.sigmoid()
    slope = sigmoid * (1 + bent * (1 - sigmoid))
    gain = HELD / float(slope) / std
    unet.conv_out.weight.zero_()
    unet.conv_out.weight[range(content), range(content), 1, 1] = gain
    unet.conv_out.bias[:] = -gain * float(bent * sigmoid)


def _pass_on(layer: Any, count: int, first: int, to: int = 0, clear: bool = True) -> None:
    """Outputs `to`... of a convolution become inputs `first`...; without `clear` its other weights stay."""
    weight = layer.weight
    if clear:
        weight[to : to + count] = 0
        layer.bias[to : to + count] = 0
    rows = torch.arange(count)
    middle = weight.shape[-1] // 2
    weight[to + rows, first + rows] = 0
    weight[to + rows, first + rows, middle, middle] = 1


def _clear(layer: Any, count: int) -> None:
    layer.weight[:count] = 0
    layer.bias[:count] = 0
