"""What pre-training trains, and how it begins: fresh networks with a fitted codec, or the weights of an earlier run."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.networks.codec import Codec, fit_linear_codec
from models.networks.foundation import Foundation, load_codec
from models.networks.lapped_codec import fit_lapped_codec
from models.networks.latent_space import LatentSpace
from models.networks.networks import MotionControlNet, motion_controlnet_like
from models.origins.pocket import (
    CODEC_FACTOR,
    PROCEDURAL_WORDS,
    pocket_image_controlnet,
    pocket_scheduler,
    pocket_text_encoder,
    pocket_tokenizer,
    pocket_unet,
    start_away_from_zero,
)
from models.origins.warp_start import start_as_warp
from models.pictures.stills import random_stills
from models.pretraining import make_pool
from models.scenes import PRETRAIN_SEEDS, Kind
from models.worlds import World
from stages.params import Params
from stages.train.start import read_start

SEED_OF_CODEC, SEED_OF_SPREAD = PRETRAIN_SEEDS - 2 * 10**6, PRETRAIN_SEEDS - 10**6  # scenes not trained on
SCENES_OF_SPREAD = 96  # that the deviation of latents is measured on
STILLS_SIZE = (144, 96)  # pixels of the pictures that a codec for photographs is fitted to, whatever size is trained
RENDERED_AT_ONCE = 100  # scenes; more take more memory
PICTURE_VOCABULARY = 1200  # words and letters of the tokenizer, for the labels of the album


@dataclass
class Trainee:
    """Everything that learns: the foundation and the motion ControlNet."""

    foundation: Foundation
    motion_controlnet: MotionControlNet

    def parameters(self) -> list[nn.Parameter]:
        base = self.foundation
        trained = (base.unet, base.image_controlnet, base.text_encoder, self.motion_controlnet)
        return [p for network in trained for p in network.parameters()]

    def save(self, folder: str | Path) -> None:
        """The foundation's folder, with the motion ControlNet in it."""
        self.foundation.save(folder)
        self.motion_controlnet.save_pretrained(Path(folder) / "motion_controlnet")


def begin(params: Params, world: World, codec_folder: Path, device: str) -> Trainee:
    """The trainee at step 0: what lies in `pretrain.start`, or fresh networks.

    Args:
        codec_folder: where a codec that takes minutes to fit is kept for the time of the run.
    """
    if params.pretrain.start is None:
        return _fresh(params, world, codec_folder, device)
    start = Path(params.pretrain.start)
    foundation = Foundation.load(start).to(device)
    network = read_start(start / "motion_controlnet", "pretrain.start")
    trainee = Trainee(foundation, network.to(device).eval())
    for parameter in trainee.parameters():
        parameter.requires_grad_(True)
    return trainee


def _fresh(params: Params, world: World, codec_folder: Path, device: str) -> Trainee:
    """Fresh networks; output layers of both ControlNets away from zero, or joint training starts too slowly."""
    settings = params.pretrain
    torch.manual_seed(settings.seed)
    tokenizer = pocket_tokenizer(*([PROCEDURAL_WORDS] if world.album is None else [_labels(world), PICTURE_VOCABULARY]))
    unet = pocket_unet(
        settings.latent_channels,
        settings.channels,
        settings.norm_groups,
        settings.heads,
        settings.motion_heads,
        settings.text_width,
    )
    image_controlnet = pocket_image_controlnet(unet)
    motion_controlnet = motion_controlnet_like(
        image_controlnet, list(settings.condition), settings.flow_scale, CODEC_FACTOR, settings.seed
    )
    for network in (image_controlnet, motion_controlnet):
        start_away_from_zero(network)
    foundation = Foundation(
        unet=unet,
        image_controlnet=image_controlnet,
        vae=fitted_codec(params, world, codec_folder).requires_grad_(False),
        text_encoder=pocket_text_encoder(tokenizer, settings.text_width),
        tokenizer=tokenizer,
        scheduler=pocket_scheduler(),
        latent_space=LatentSpace(),
    ).to(device)
    seeds = range(SEED_OF_SPREAD, SEED_OF_SPREAD + SCENES_OF_SPREAD)
    size = params.video.width, params.video.height
    pool = make_pool(world, foundation, seeds, size, params.video.frames, device)
    residual = (pool.latents - pool.latents[:, :, :1])[:, :, 1:]
    foundation.latent_space = LatentSpace(mean=0.0, std=float(residual.std()), first_frame_weight=1.0)
    if settings.warp_start:
        start_as_warp(foundation, motion_controlnet)
    return Trainee(foundation, motion_controlnet.to(device))


def fitted_codec(params: Params, world: World, folder: Path) -> Codec:
    """The codec of the parameters; a lapped one is read from `folder` if it has been fitted before."""
    settings = params.pretrain
    if settings.codec == "linear":
        return fit_linear_codec(_codec_images(params, world), CODEC_FACTOR, settings.latent_channels)
    if not folder.is_dir():
        print(f"pretrain: fits the codec in {settings.codec_steps} steps")
        images = _codec_images(params, world)
        codec = fit_lapped_codec(
            images, CODEC_FACTOR, settings.latent_channels, settings.refiner_width, settings.codec_steps, settings.seed
        )
        codec.save_pretrained(folder)
    return load_codec(folder)


def _codec_images(params: Params, world: World) -> Tensor:
    """Pictures (N, 3, H, W) in -1..1: frames of scenes; where these are made of photographs, half are stills."""
    count = params.pretrain.codec_images
    if world.album is None:
        size, scenes = (params.video.width, params.video.height), count
    else:
        size, scenes = STILLS_SIZE, count // 2
    seeds = list(range(SEED_OF_CODEC, SEED_OF_CODEC + scenes))
    kind: Kind = "camera" if world.album is None else "mixed"
    images = [
        world.render(world.sample([kind] * len(part), 3, part, size[1], world.objects), *size)[:, 2]
        for part in (seeds[i : i + RENDERED_AT_ONCE] for i in range(0, scenes, RENDERED_AT_ONCE))
    ]
    if world.album is not None:
        images.append(random_stills(world.album, count - scenes, *size, params.pretrain.seed))
    return torch.cat(images) * 2 - 1


def _labels(world: World) -> list[str]:
    return [] if world.album is None else ["a piece of", "on", "and", *world.album.labels()]
