"""The three networks (Sec 2.3): denoising UNet, image ControlNet, motion ControlNet.

diffusers' own classes, with one correction. The authors, like the original AnimateDiff code, normalise each frame by
itself in front of a motion module, with a number of groups of its own; diffusers normalises over all frames jointly,
with the UNet's number of groups.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.loaders import PeftAdapterMixin
from diffusers.models.controlnets.controlnet_sparsectrl import SparseControlNetModel
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D, UNetMotionModel
from torch import Tensor, nn

from models.networks.seeded import seeded
from models.networks.shared_files import let_others_read

MOTION_NORM_GROUPS = 32


class PerFrameMotionTransformer(AnimateDiffTransformer3D):
    """Temporal self-attention whose GroupNorm sees one frame at a time."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,  # (B * T, C, H, W)
        encoder_hidden_states: Tensor | None = None,
        timestep: Tensor | None = None,
        class_labels: Tensor | None = None,
        num_frames: int = 1,
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> Tensor:
        rows, channels, height, width = hidden_states.shape
        batch = rows // num_frames
        tokens = self.norm(hidden_states).reshape(batch, num_frames, channels, height * width)
        tokens = tokens.permute(0, 3, 1, 2).reshape(batch * height * width, num_frames, channels)
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(
                tokens,
                encoder_hidden_states=encoder_hidden_states,
                timestep=timestep,
                cross_attention_kwargs=cross_attention_kwargs,
                class_labels=class_labels,
            )
        tokens = self.proj_out(tokens).reshape(batch, height * width, num_frames, channels)
        return hidden_states + tokens.permute(0, 2, 3, 1).reshape(rows, channels, height, width)


def _normalise_per_frame(network: nn.Module, groups: int) -> None:
    for module in network.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            module.__class__ = PerFrameMotionTransformer
            module.norm = nn.GroupNorm(groups, module.in_channels, eps=1e-6)


class _ExtendsConfig:
    """Lets a subclass with `**kwargs` keep every configuration key of the diffusers class it extends."""

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        return {
            key
            for cls in input_class.__mro__
            if "__init__" in vars(cls) and issubclass(cls, ModelMixin)
            for key in inspect.signature(vars(cls)["__init__"]).parameters
        }

    @classmethod
    def config_keys(cls) -> set[str]:
        """The keys of a `config.json` that the class uses. Published files have others, which older classes used."""
        return cls._get_init_keys(cls) - {"self", "args", "kwargs"}

    @classmethod
    def _get_signature_keys(cls, obj: type) -> tuple[set[str], set[str]]:
        """No key is required. These keys are known; `from_unet2d` drops all others."""
        return set(), cls._get_init_keys(obj) - {"self"}


class MotionUNet(_ExtendsConfig, UNetMotionModel):
    """`UNetMotionModel` with per-frame motion norms. sample (B, C, T, h, w) -> prediction (B, C, T, h, w)."""

    def __init__(self, *args: Any, motion_norm_num_groups: int = MOTION_NORM_GROUPS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_to_config(motion_norm_num_groups=motion_norm_num_groups)
        _normalise_per_frame(self, motion_norm_num_groups)


class ImageControlNet(_ExtendsConfig, SparseControlNetModel):
    """SparseCtrl: condition = first-frame latents and zero frames, plus a mask channel. Never sees noisy latents."""

    def __init__(self, *args: Any, motion_norm_num_groups: int = MOTION_NORM_GROUPS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_to_config(motion_norm_num_groups=motion_norm_num_groups)
        _normalise_per_frame(self, motion_norm_num_groups)


class MotionControlNet(_ExtendsConfig, SparseControlNetModel, PeftAdapterMixin):
    """The same construction for trajectories; carries the camera LoRA and the object LoRA.

    `condition` lists what it is conditioned on, see `models.denoising.conditions`. `flow_scale` multiplies the blurred
    flow map. `codec_factor` is the VAE's down-scaling, which the flow map is pixel-unshuffled by.
    """

    def __init__(
        self,
        *args: Any,
        motion_norm_num_groups: int = MOTION_NORM_GROUPS,
        condition: tuple[str, ...] = ("flow",),
        flow_scale: float = 1.0,
        codec_factor: int = 8,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.register_to_config(
            motion_norm_num_groups=motion_norm_num_groups,
            condition=list(condition),
            flow_scale=flow_scale,
            codec_factor=codec_factor,
        )
        _normalise_per_frame(self, motion_norm_num_groups)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **options: Any) -> None:
        """As in diffusers. All users of the machine may read the weights, if the umask lets them."""
        super().save_pretrained(save_directory, *args, **options)
        let_others_read(save_directory)


def condition_channels(condition: list[str], latent_channels: int, codec_factor: int) -> int:
    """Channels of the motion ControlNet's condition, the sum over its parts (see `models.denoising.conditions`)."""
    sizes = {
        "flow": 2 * codec_factor**2,
        "first_frame_latents": latent_channels + 1,
        "first_frame_as_camera": latent_channels,
    }
    return sum(sizes[name] for name in condition)


def motion_controlnet_like(
    image_controlnet: ImageControlNet, condition: list[str], flow_scale: float, codec_factor: int, seed: int
) -> MotionControlNet:
    """A fresh motion ControlNet beside an image ControlNet: its encoder copied, condition and output layers new.

    Its output convolutions are zero, so at first the network changes nothing. The condition embedding is not zero: if
    both were, each would block the other's gradient.
    """
    own = {"conditioning_channels", "concat_conditioning_mask"}
    shared: Mapping[str, Any] = {
        key: value
        for key, value in image_controlnet.config.items()
        if key in MotionControlNet.config_keys() and key not in own
    }
    latent_channels = image_controlnet.config.conditioning_channels
    with seeded(seed):
        network = MotionControlNet(
            **shared,
            conditioning_channels=condition_channels(condition, latent_channels, codec_factor),
            concat_conditioning_mask=False,
            condition=tuple(condition),
            flow_scale=flow_scale,
            codec_factor=codec_factor,
        )
        network.controlnet_cond_embedding.reset_parameters()
    copied = {
        key: value
        for key, value in image_controlnet.state_dict().items()
        if not key.startswith(("controlnet_cond_embedding.", "controlnet_down_blocks.", "controlnet_mid_block."))
    }
    network.load_state_dict(copied, strict=False)
    return network


__all__ = [
    "ImageControlNet",
    "MotionControlNet",
    "MotionUNet",
    "PerFrameMotionTransformer",
    "condition_channels",
    "motion_controlnet_like",
]
