"""The sampler (Sec 2.5): one image, a prompt and strokes become a video.

from models.pipeline import ImageConductorPipeline
pipe = ImageConductorPipeline.from_pretrained("artifacts/model")
video = pipe(image, "a red circle", trajectories, mode="object", generator=torch.manual_seed(0)).frames[0]
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler, SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image, ImageOps
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from models import denoiser, personalisation
from models.adapters import fused_loras, loaded_loras, without_loras
from models.branches import LORAS, MODES, Mode, Sampling, alike, combine, plan
from models.codec import Codec
from models.conditions import motion_condition, unshuffled_flow
from models.curation.crop import cover_crop
from models.flow_maps import flow_map
from models.foundation import OUTSIDE, Foundation
from models.latent_space import LatentSpace
from models.lora import load_lora, save_lora
from models.networks import ImageControlNet, MotionControlNet, MotionUNet
from models.sampling import BranchPredictions, ImageResidualCache, Inputs
from models.trajectories import parse_trajectories, stroke_tracks

Solver = Literal["ddim", "dpmsolver++"]
SOLVERS: dict[Solver, type[SchedulerMixin]] = {"ddim": DDIMScheduler, "dpmsolver++": DPMSolverMultistepScheduler}

SETTINGS_FILE = "image_conductor.json"
CHECKPOINT_FILE, PERSONAL_FOLDER = "checkpoint.safetensors", "personal_loras"


@dataclass(frozen=True)
class Settings:
    """What a model was made for: frame size in pixels, frames, frames per second, and its sampling defaults.

    A `trajectory_guidance_scale` of None is plain classifier-free guidance. `solver` is `ddim` (the paper's) or
    `dpmsolver++`. The ControlNets are asked at every `residual_interval`-th step; more than 1 is an approximation.
    `guidance_rescale`, 0 to 1, takes back what guidance does to contrast, see `models.guidance.rescaled`; the paper has
    0. `personal_loras` are the weights of community LoRAs, by name.
    """

    width: int = 384
    height: int = 256
    frames: int = 16
    fps: int = 8
    num_inference_steps: int = 25
    guidance_scale: float = 8.5
    trajectory_guidance_scale: float | None = None
    guidance_rescale: float = 0.0
    solver: Solver = "ddim"
    residual_interval: int = 1
    personal_loras: Mapping[str, float] = field(default_factory=dict)


@dataclass
class ImageConductorOutput(BaseOutput):
    """frames: per video a list of PIL images; or (S, T, H, W, 3) in 0..1; or latents (S, C, T, h, w).

    cropped: what was cut off the user's image to fit the model's frame; empty if nothing was.
    """

    frames: list[list[Image.Image]] | np.ndarray | Tensor
    cropped: str = ""


class ImageConductorPipeline(DiffusionPipeline):
    """Image-to-video with camera and object strokes. The VAE and the text encoder may be None if latents and
    embeddings are given; the motion ControlNet holds the adapters `camera` and `object`."""

    _optional_components: ClassVar = ["vae", "text_encoder", "tokenizer"]
    model_cpu_offload_seq = "text_encoder->vae"  # the networks of the sampling loop take turns at every step: they stay
    _exclude_from_cpu_offload: ClassVar = ["unet", "image_controlnet", "motion_controlnet"]

    def __init__(
        self,
        unet: MotionUNet,
        image_controlnet: ImageControlNet,
        motion_controlnet: MotionControlNet,
        scheduler: DDIMScheduler,
        vae: Codec | None = None,
        text_encoder: CLIPTextModel | None = None,
        tokenizer: CLIPTokenizer | None = None,
        latent_space: LatentSpace | None = None,
        settings: Settings | None = None,
    ):
        super().__init__()
        self.register_modules(
            unet=unet,
            image_controlnet=image_controlnet,
            motion_controlnet=motion_controlnet,
            scheduler=scheduler,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )
        self.latent_space = latent_space or LatentSpace()
        self.settings = settings or Settings()
        self.image_cache: ImageResidualCache | None = None
        self._personal_files: dict[str, Path] = {}

    def load_checkpoint(self, path: str | Path) -> None:
        """Take UNet image layers, text encoder and VAE of a community checkpoint, see `models.personalisation`."""
        personalisation.load_checkpoint(Path(path), self.unet, self.text_encoder, self.vae)

    def load_personal_lora(self, path: str | Path, name: str) -> None:
        """Add a community LoRA; it acts with the weight that `personal_loras` gives it in a call or in the settings."""
        personalisation.load_lora(Path(path), name, self.unet, self.text_encoder)
        self._personal_files[name] = Path(path)

    def enable_image_cache(self) -> None:
        """Keep the image ControlNet's residuals of the last picture and text, so that other strokes on it come faster.

        Takes memory: a set of residuals for each timestep and text (161 MB each at SD 1.5 size in half precision).
        """
        self.image_cache = ImageResidualCache()

    @classmethod
    def assemble(
        cls,
        foundation: Foundation,
        motion_controlnet: MotionControlNet,
        settings: Settings | None = None,
    ) -> "ImageConductorPipeline":
        """Put a motion ControlNet, with its LoRAs loaded, on a foundation."""
        return cls(
            foundation.unet,
            foundation.image_controlnet,
            motion_controlnet,
            foundation.scheduler,
            foundation.vae,
            foundation.text_encoder,
            foundation.tokenizer,
            foundation.latent_space,
            settings,
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path, torch_dtype: torch.dtype = torch.float32) -> "ImageConductorPipeline":
        """Read a saved model: a foundation's subfolders, `motion_controlnet/`, and `<camera|object>_lora/` if there.
        Without VAE or text encoder it works on latents or embeddings alone. A community `checkpoint.safetensors` and
        `personal_loras/<name>.safetensors` are loaded on top.

        Raises:
            FoundationError: a subfolder of the foundation is missing.
            FileNotFoundError: `motion_controlnet/` is missing.
        """
        folder = Path(folder)
        foundation = Foundation.load(folder, torch_dtype, optional=OUTSIDE)
        if not (folder / "motion_controlnet").is_dir():
            raise FileNotFoundError(
                f"{folder}: no motion_controlnet; expected a folder that save_pretrained has written"
            )
        motion_controlnet = MotionControlNet.from_pretrained(folder / "motion_controlnet", torch_dtype=torch_dtype)
        for name in LORAS:
            if (folder / f"{name}_lora").is_dir():
                load_lora(motion_controlnet, name, folder / f"{name}_lora")
        if torch_dtype != torch.float32:
            motion_controlnet.to(torch_dtype)
        motion_controlnet.requires_grad_(False).eval()
        path = folder / SETTINGS_FILE
        settings = Settings(**json.loads(path.read_text())) if path.is_file() else None
        pipe = cls.assemble(foundation, motion_controlnet, settings)
        if (folder / CHECKPOINT_FILE).is_file():
            pipe.load_checkpoint(folder / CHECKPOINT_FILE)
        for file in sorted((folder / PERSONAL_FOLDER).glob("*.safetensors")):
            pipe.load_personal_lora(file, file.stem)
        return pipe

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to one folder, which `from_pretrained` reads."""
        folder = Path(folder)
        bare = {"unet": without_loras(self.unet)}
        if self.text_encoder is not None:
            bare["text_encoder"] = without_loras(self.text_encoder)
        replace(self.foundation, **bare).save(folder)
        if self._personal_files:
            (folder / PERSONAL_FOLDER).mkdir(exist_ok=True)
        for name, file in self._personal_files.items():
            shutil.copyfile(file, folder / PERSONAL_FOLDER / f"{name}.safetensors")
        without_loras(self.motion_controlnet).save_pretrained(folder / "motion_controlnet")
        for name in loaded_loras(self.motion_controlnet):
            save_lora(self.motion_controlnet, name, folder / f"{name}_lora")
        (folder / SETTINGS_FILE).write_text(json.dumps(vars(self.settings), indent=2) + "\n")

    @property
    def foundation(self) -> Foundation:
        """The networks around the motion ControlNet."""
        return Foundation(
            self.unet,
            self.image_controlnet,
            self.vae,
            self.text_encoder,
            self.tokenizer,
            self.scheduler,
            self.latent_space,
        )

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | Sequence[Image.Image] | None = None,
        prompt: str | None = None,
        trajectories: Any = None,
        mode: Mode = "object",
        *,
        negative_prompt: str = "",
        image_latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        flow_maps: Tensor | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        trajectory_guidance_scale: float | None = None,
        solver: Solver | None = None,
        residual_interval: int | None = None,
        image_frames: Sequence[int] = (0,),
        personal_loras: Mapping[str, float] | None = None,
        latents: Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_videos: int = 1,
        output_type: Literal["pil", "np", "latent"] = "pil",
    ) -> ImageConductorOutput:
        """Make `num_videos` videos of one image.

        Args:
            image: scaled to cover the model's frame and centre-cropped; strokes are transformed with it. Several
                images of one size stand at the frames `image_frames`.
            prompt, negative_prompt: texts; the second is `null` of guidance.
            trajectories: whatever `models.trajectories.parse_trajectories` reads.
            mode: what the strokes mean; `both` moves objects by `trajectories` and the camera by
                `camera_trajectories`. Mode `camera` takes these where there are no `trajectories`.
            image_latents: (1, C, h, w) or (1, C, K, h, w) in the VAE's scaled space, instead of `image`.
            prompt_embeds, negative_prompt_embeds: (1, L, D), instead of the texts.
            flow_maps: (1, 2, T, H, W) blurred, pixels per frame, instead of `trajectories`.
            num_frames, num_inference_steps, guidance_scale: None takes the model's own. guidance_scale 1 switches
                classifier-free guidance off.
            trajectory_guidance_scale: l_trajs of Eq. 5 in object mode, l_obj in mode `both`. None is plain guidance,
                as camera mode always is.
            solver, residual_interval: see `Settings`; None takes the model's own.
            image_frames: K rising frame numbers from 0, where the images stand.
            personal_loras: weights of loaded community LoRAs, by name; None takes the model's own.
            latents: (S, C, T, h, w) initial noise, one for each video; drawn from `generator` if None.
            generator: one, or one for each video; a video depends on its own noise alone.

        Raises:
            ValueError: an argument is missing, contradicts another, or is out of range. The message names it.
        """
        # 1. Check and fill in arguments
        _require_one(image=image, image_latents=image_latents)
        _require_one(prompt=prompt, prompt_embeds=prompt_embeds)
        _require_one(trajectories=trajectories, flow_maps=flow_maps)
        self._check(mode, output_type, num_videos)
        if num_frames is None:
            num_frames = self.settings.frames if flow_maps is None else flow_maps.shape[2]
        guidance_scale = self.settings.guidance_scale if guidance_scale is None else guidance_scale

        # 2. Image and text
        first, cropped = self._image_latents(image, image_latents)
        weights = self.settings.personal_loras if personal_loras is None else personal_loras
        null = None
        with personalisation.personal_loras(self.unet, self.text_encoder, weights):
            text = self._embedded("prompt", prompt, prompt_embeds)
            if guidance_scale != 1:
                null = self._embedded("negative_prompt", negative_prompt, negative_prompt_embeds)

        # 3. Strokes
        motion: dict[str, Any] = {}
        if flow_maps is not None:
            motion["flow_maps"] = flow_maps
        else:
            drawn = parse_trajectories(trajectories)
            strokes = {"": drawn.strokes_of(mode), "camera_": drawn.camera_strokes if mode == "both" else ()}
            for prefix, chosen in strokes.items():
                tracks, visibility = stroke_tracks(chosen, drawn.canvas, self._frame, num_frames)
                motion[f"{prefix}tracks"] = torch.from_numpy(tracks)[None]
                motion[f"{prefix}visibility"] = torch.from_numpy(visibility)[None]

        # 4. Noise
        shape = (num_videos, first.shape[1], num_frames, *first.shape[3:])
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)
        elif latents.ndim != 5 or latents.shape[1:] != shape[1:]:
            raise ValueError(f"latents: expected (S, {', '.join(map(str, shape[1:]))}), got {tuple(latents.shape)}")

        # 5. Sample and decode
        with personalisation.personal_loras(self.unet, self.text_encoder, weights):
            latents = self.sample_latents(
                first,
                text,
                mode=mode,
                negative_prompt_embeds=null,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                trajectory_guidance_scale=trajectory_guidance_scale,
                solver=solver,
                residual_interval=residual_interval,
                image_frames=image_frames,
                latents=latents[:, None],
                **motion,
            )[:, 0]
        return ImageConductorOutput(self._output(latents, output_type), cropped)

    @torch.no_grad()
    def sample_latents(
        self,
        first_latents: Tensor,
        prompt_embeds: Tensor,
        tracks: Tensor | None = None,
        visibility: Tensor | None = None,
        mode: Sampling = "object",
        *,
        latents: Tensor,
        camera_tracks: Tensor | None = None,
        camera_visibility: Tensor | None = None,
        flow_maps: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        trajectory_guidance_scale: float | None = None,
        solver: Solver | None = None,
        residual_interval: int | None = None,
        image_frames: Sequence[int] = (0,),
        batch_branches: bool | None = None,
    ) -> Tensor:
        """Sample B different (image, prompt, strokes), with one noise each or S noises each.

        Timesteps run outside, noises inside: the ControlNets do not see the noisy latents, so their residuals are made
        once for each timestep and branch, and dropped after it. LoRAs are fused into the weights for the whole run.

        Args:
            first_latents: (B, C, h, w) of the first frames, in the VAE's scaled space; (B, C, K, h, w) of the frames
                `image_frames`.
            prompt_embeds, negative_prompt_embeds: (B, L, D) or (1, L, D).
            tracks, visibility: (B, T, N, 2) pixels of the model's frame and (B, T, N) bool. N = 0: no stroke.
            mode: also `base`, the motion ControlNet without LoRA, and `none`, no motion ControlNet at all.
            latents: noise (B, C, T, h, w), or (S, B, C, T, h, w).
            camera_tracks, camera_visibility: camera strokes of mode `both`.
            flow_maps: (B, 2, T, H, W) instead of tracks, for a network that is conditioned on the flow map only.
            batch_branches: run branches of one LoRA as one batch; None: on a GPU. On a CPU it takes memory for nothing.

        Returns:
            Latents in the VAE's scaled space, of the shape of `latents`.

        Raises:
            ValueError: the mode is unknown or its LoRA is not loaded, or an input is missing or of another shape.
        """
        settings = self._settings(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            solver=solver,
            residual_interval=residual_interval,
        )
        scale = settings.guidance_scale
        if trajectory_guidance_scale is not None and not math.isfinite(trajectory_guidance_scale):
            raise ValueError(f"trajectory_guidance_scale: must be a finite number, got {trajectory_guidance_scale}")
        if scale != 1 and negative_prompt_embeds is None:
            raise ValueError("negative_prompt_embeds: needed for a guidance_scale other than 1")
        branches = plan(mode, scale, trajectory_guidance_scale)
        missing = {branch.lora for branch in branches if branch.lora} - set(loaded_loras(self.motion_controlnet))
        if missing:
            raise ValueError(
                f"mode: {mode} needs the LoRA {', '.join(sorted(missing))}, which this model does not have"
            )

        noises = latents if latents.ndim == 6 else latents[None]
        batch, frames = noises.shape[1], noises.shape[3]
        if not 1 <= frames <= (longest := self.unet.config.motion_max_seq_length):
            raise ValueError(f"num_frames: this model makes 1 to {longest} frames, got {frames}")
        place = {"device": self._execution_device, "dtype": self.unet.dtype}
        images = first_latents.to(**place)
        images = images[:, :, None] if images.ndim == 4 else images
        first = images[:, :, 0]
        if first.shape[0] != batch:
            raise ValueError(f"first_latents: {first.shape[0]} images for {batch} noises; give one for each")
        image, image_mask = denoiser.image_condition(images, image_frames, frames)
        strokes = _given(object=(tracks, visibility), camera=(camera_tracks, camera_visibility))
        inputs = Inputs(
            first=first,
            image=image,
            image_mask=image_mask,
            texts={
                name: denoiser.repeat_per_frame(embeds.to(**place).expand(batch, -1, -1), frames)
                for name, embeds in {"text": prompt_embeds, "null": negative_prompt_embeds}.items()
                if embeds is not None and name in {branch.prompt for branch in branches}
            },
            conditions={
                name: self._condition(name, strokes, flow_maps, first)
                for name in {branch.strokes for branch in branches if branch.strokes}
            },
        )
        if batch_branches is None:
            batch_branches = place["device"].type == "cuda"
        groups = alike(branches) if batch_branches else [[branch] for branch in branches]

        scheduler = self._scheduler(settings.solver)
        scheduler.set_timesteps(settings.num_inference_steps, device=place["device"])
        x = noises.to(**place) * scheduler.init_noise_sigma
        with (
            fused_loras(self.motion_controlnet, {branch.lora for branch in branches}) as switch,
            self.progress_bar(total=settings.num_inference_steps) as progress,
        ):
            predictions = BranchPredictions(
                self.unet,
                self.image_controlnet,
                self.motion_controlnet,
                switch,
                inputs,
                groups,
                settings.residual_interval,
                self.image_cache,
            )
            for step, t in enumerate(scheduler.timesteps):
                predicted = predictions(step, t, scheduler.scale_model_input(x, t))
                guided = combine(mode, predicted, scale, trajectory_guidance_scale, rescale=settings.guidance_rescale)
                x = scheduler.step(guided, t, x).prev_sample
                progress.update()
        return torch.stack([self.latent_space.from_model(each, first) for each in x]).view(latents.shape)

    def _settings(self, **chosen: Any) -> Settings:
        """The model's own sampling settings, with those that are not None put over them."""
        settings = replace(self.settings, **{name: value for name, value in chosen.items() if value is not None})
        for name in ("num_inference_steps", "residual_interval"):
            if getattr(settings, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(settings, name)}")
        if not 1 <= settings.guidance_scale < math.inf:
            raise ValueError(f"guidance_scale: must be a number from 1 up, got {settings.guidance_scale}")
        if settings.solver not in SOLVERS:
            raise ValueError(f"solver: {settings.solver!r} is unknown; use {', '.join(SOLVERS)}")
        return settings

    def _scheduler(self, solver: Solver) -> SchedulerMixin:
        """A scheduler of its own for each run, on the model's noise schedule."""
        return SOLVERS[solver].from_config(self.scheduler.config)

    def fit_image(self, image: Image.Image) -> tuple[Tensor, str]:
        """An image of any shape as the model's frame (1, 3, H, W) in 0..1, and what was cropped for it."""
        upright = ImageOps.exif_transpose(image).convert("RGB")
        crop = cover_crop(upright.size, self._frame)
        pixels = torch.from_numpy(np.asarray(crop.image(upright), np.float32) / 255)
        return pixels.permute(2, 0, 1)[None], crop.describe()

    @property
    def _frame(self) -> tuple[int, int]:
        return self.settings.width, self.settings.height

    def _image_latents(
        self, image: Image.Image | Sequence[Image.Image] | None, image_latents: Tensor | None
    ) -> tuple[Tensor, str]:
        """Latents (1, C, K, h, w) of the images, and what was cropped off the first."""
        if image_latents is not None:
            return (image_latents if image_latents.ndim == 5 else image_latents[:, :, None]), ""
        if self.vae is None:
            raise ValueError("image: this pipeline has no VAE; give image_latents")
        assert image is not None
        images = [image] if isinstance(image, Image.Image) else list(image)
        if len({each.size for each in images}) != 1:
            raise ValueError("image: images of one size are needed, at least one")
        fitted = [self.fit_image(each) for each in images]
        pixels = torch.cat([pixels for pixels, _ in fitted]).to(self._execution_device)
        return self.foundation.encode_images(pixels).transpose(0, 1)[None], fitted[0][1]

    def _embedded(self, argument: str, text: str | None, embeds: Tensor | None) -> Tensor:
        if embeds is not None:
            return embeds
        if self.text_encoder is None:
            raise ValueError(f"{argument}: this pipeline has no text encoder; give {argument}_embeds")
        return self.foundation.encode_text([text or ""])

    def _condition(
        self,
        name: str,
        strokes: dict[str, tuple[Tensor, Tensor]],
        flow_maps: Tensor | None,
        first: Tensor,
    ) -> Tensor:
        """Condition (B, C, T, h, w) made of the `object` strokes, the `camera` strokes or `all`."""
        config = self.motion_controlnet.config
        given = [pair for kind, pair in strokes.items() if name in (kind, "all")]
        if flow_maps is not None:
            if given or list(config.condition) != ["flow"]:
                raise ValueError(
                    "flow_maps: give tracks instead, unless the network is conditioned on the flow map only"
                )
            return unshuffled_flow(flow_maps.to(first), config.flow_scale, config.codec_factor)
        if not given:
            raise ValueError(f"tracks: none of the {name} strokes; give tracks of N = 0 for no stroke")
        tracks = torch.cat([pair[0] for pair in given], dim=2).to(first.device)
        visibility = torch.cat([pair[1] for pair in given], dim=2).to(first.device)
        height, width = (side * config.codec_factor for side in first.shape[2:])
        maps = flow_map(tracks, visibility, height, width)
        return motion_condition(config, self.vae, maps, tracks, visibility, first.float()).to(first.dtype)

    def _output(self, latents: Tensor, output_type: str) -> list[list[Image.Image]] | np.ndarray | Tensor:
        if output_type == "latent":
            return latents
        videos = self.foundation.decode(latents).permute(0, 1, 3, 4, 2).float().cpu().numpy()
        return videos if output_type == "np" else [self.numpy_to_pil(video) for video in videos]

    def _check(self, mode: str, output_type: str, num_videos: int) -> None:
        if mode not in MODES:
            raise ValueError(f"mode: {mode!r} is unknown; use {', '.join(MODES)}")
        if output_type not in ("pil", "np", "latent"):
            raise ValueError(f"output_type: {output_type!r} is unknown; use pil, np or latent")
        if output_type != "latent" and self.vae is None:
            raise ValueError("output_type: this pipeline has no VAE; use latent")
        if num_videos < 1:
            raise ValueError(f"num_videos: must be at least 1, got {num_videos}")


def _given(**strokes: tuple[Tensor | None, Tensor | None]) -> dict[str, tuple[Tensor, Tensor]]:
    """The kinds of strokes that have both tracks and visibility."""
    return {
        kind: (tracks, visibility)
        for kind, (tracks, visibility) in strokes.items()
        if tracks is not None and visibility is not None
    }


def _require_one(**arguments: Any) -> None:
    """Exactly one of two alternatives must be given."""
    if sum(value is not None for value in arguments.values()) != 1:
        raise ValueError(f"{' or '.join(arguments)}: give one of them")
