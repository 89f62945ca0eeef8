"""The sampler (Sec 2.5): one image, a prompt and strokes become a video.

from models.sampling.pipeline import ImageConductorPipeline
pipe = ImageConductorPipeline.from_pretrained("artifacts/model")
video = pipe(image, "a red circle", trajectories, mode="object", generator=torch.manual_seed(0)).frames[0]
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from models.denoising.strokes import Strokes
from models.modes import Lora, Mode, SamplingMode
from models.networks.codec import Codec
from models.networks.foundation import Foundation
from models.networks.latent_space import LatentSpace
from models.networks.networks import ImageControlNet, MotionControlNet, MotionUNet
from models.sampling import personalisation, saved_model
from models.sampling.adapters import fused_loras, loaded_loras
from models.sampling.branches import batched
from models.sampling.call import CallOptions, ImageConductorOutput, StepCallback, check, divided, require_one
from models.sampling.identity import ModelIdentity
from models.sampling.inputs import drawn_strokes, fit_images, initial_noise, make_inputs
from models.sampling.loop import make_scheduler, run_loop
from models.sampling.model_index import CHECKPOINT_FILE, PERSONAL_FOLDER
from models.sampling.predictions import BranchPredictions, ImageResidualCache
from models.sampling.settings import SamplingOptions, Settings


class ImageConductorPipeline(DiffusionPipeline):
    """Image-to-video with camera and object strokes. The VAE and the text encoder may be None if latents and
    embeddings are given. The motion ControlNet holds the adapters `camera` and `object`."""

    _optional_components: ClassVar = ["vae", "text_encoder", "tokenizer"]
    model_cpu_offload_seq = "text_encoder->vae"  # the loop's networks stay on the GPU: each step uses them all
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
            unet=unet, image_controlnet=image_controlnet, motion_controlnet=motion_controlnet, scheduler=scheduler
        )
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer)
        self.latent_space = latent_space or LatentSpace()
        self.settings = settings or Settings()
        self.identity: ModelIdentity | None = None
        self.image_cache: ImageResidualCache | None = None
        self._personal_files: dict[str, Path] = {}

    @classmethod
    def assemble(
        cls, foundation: Foundation, motion_controlnet: MotionControlNet, settings: Settings | None = None
    ) -> "ImageConductorPipeline":
        """Put a motion ControlNet, with its LoRAs loaded, on a foundation."""
        return cls(**vars(foundation), motion_controlnet=motion_controlnet, settings=settings)

    @classmethod
    def from_pretrained(cls, folder: str | Path, torch_dtype: torch.dtype = torch.float32) -> "ImageConductorPipeline":
        """Read a saved model, see `models.sampling.saved_model`. Its community weights are loaded on top.

        Raises:
            UserError: the folder is no saved model, or one of a newer format.
        """
        folder = Path(folder)
        pipe = cls.assemble(*saved_model.read_model(folder, torch_dtype))
        if (folder / CHECKPOINT_FILE).is_file():
            pipe.load_checkpoint(folder / CHECKPOINT_FILE)
        pipe.load_personal_loras(folder)
        return pipe

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to one folder, which `from_pretrained` reads."""
        model = saved_model.SavedModel(self.foundation, self.motion_controlnet, self.settings)
        saved_model.write_model(Path(folder), model, self._personal_files)

    def load_checkpoint(self, path: str | Path) -> None:
        """Take UNet image layers, text encoder and VAE of a community checkpoint, see `personalisation`."""
        personalisation.load_checkpoint(Path(path), self.unet, self.text_encoder, self.vae)

    def load_personal_lora(self, path: str | Path, name: str) -> None:
        """Add a community LoRA. Its weight is that of `personal_loras` in a call or in the settings."""
        personalisation.load_community_lora(Path(path), name, self.unet, self.text_encoder)
        self._personal_files[name] = Path(path)

    def load_personal_loras(self, folder: Path) -> None:
        """Add the community LoRAs of a saved model's folder."""
        for file in sorted((folder / PERSONAL_FOLDER).glob("*.safetensors")):
            self.load_personal_lora(file, file.stem)

    def enable_image_cache(self) -> None:
        """Keep the image ControlNet's residuals of the last picture and text: other strokes on it then take less time.

        Takes memory: a set of residuals for each timestep and text (161 MB each at SD 1.5 size in half precision).
        """
        self.image_cache = ImageResidualCache()

    @property
    def foundation(self) -> Foundation:
        """The networks around the motion ControlNet."""
        return Foundation(**{part.name: getattr(self, part.name) for part in fields(Foundation)})

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | Sequence[Image.Image] | None = None,
        prompt: str | None = None,
        trajectories: Any = None,
        mode: Mode = "object",
        *,
        negative_prompt: str = "",
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_videos: int = 1,
        output_type: Literal["pil", "np", "latent"] = "pil",
        **options: Unpack[CallOptions],
    ) -> ImageConductorOutput:
        """Make `num_videos` videos of one image.

        Args:
            image: scaled to cover the model's frame and centre-cropped; strokes are transformed with it. Several
                images of one size stand at the frames `image_frames`.
            prompt, negative_prompt: texts; the second is the `null` of guidance.
            trajectories: whatever `models.strokes.trajectories.parse_trajectories` reads.
            mode: what the strokes mean; `both` moves objects by `trajectories` and the camera by
                `camera_trajectories`. Mode `camera` takes these where there are no `trajectories`.
            generator: one, or one for each video; a video depends on its own noise alone.
            output_type: kind of `frames` in the result.
            options: see `CallOptions` and, for sampling settings, `SamplingOptions`.

        Raises:
            ValueError: an argument is missing, contradicts another, or is out of range. The message names it.
            TypeError: an option is unknown.
        """
        # 1. Check and fill in arguments
        given, sampling = divided(options)
        require_one(image=image, image_latents=given.get("image_latents"))
        require_one(prompt=prompt, prompt_embeds=given.get("prompt_embeds"))
        require_one(trajectories=trajectories, flow_maps=given.get("flow_maps"))
        check(mode, output_type, num_videos, self.vae is not None)
        settings = self.settings.changed(sampling)
        flow_maps = given.get("flow_maps")
        num_frames = given.get("num_frames") or (settings.frames if flow_maps is None else flow_maps.shape[2])

        # 2. Image and text
        first, cropped = self._image_latents(image, given.get("image_latents"))
        with personalisation.personal_loras(self.unet, self.text_encoder, settings.personal_loras):
            text, null = self._embedded("prompt", prompt, given.get("prompt_embeds")), None
            if settings.guidance_scale != 1:
                null = self._embedded("negative_prompt", negative_prompt, given.get("negative_prompt_embeds"))

        # 3. Strokes
        strokes: Any = flow_maps
        if flow_maps is None:
            strokes = drawn_strokes(trajectories, mode, (settings.width, settings.height), num_frames)

        # 4. Noise
        shape = (num_videos, first.shape[1], num_frames, *first.shape[3:])
        latents = initial_noise(shape, given.get("latents"), generator, self._execution_device, self.unet.dtype)

        # 5. Sample and decode
        with personalisation.personal_loras(self.unet, self.text_encoder, settings.personal_loras):
            latents = self.sample_latents(
                first,
                text,
                strokes,
                mode,
                latents=latents[:, None],
                negative_prompt_embeds=null,
                image_frames=given.get("image_frames", (0,)),
                on_step=given.get("on_step"),
                **sampling,
            )[:, 0]
        return ImageConductorOutput(self._output(latents, output_type), cropped)

    @torch.no_grad()
    def sample_latents(
        self,
        first_latents: Tensor,
        prompt_embeds: Tensor,
        strokes: Mapping[Lora, Strokes] | Tensor,
        mode: SamplingMode = "object",
        *,
        latents: Tensor,
        negative_prompt_embeds: Tensor | None = None,
        image_frames: Sequence[int] = (0,),
        batch_branches: bool | None = None,
        on_step: StepCallback | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Tensor:
        """Sample B different (image, prompt, strokes), each with one noise or with S noises.

        The outer loop runs over timesteps, the inner one over noises. The ControlNets do not see the noisy latents, so
        their residuals are computed once for each timestep and branch. LoRAs are fused into the weights for the run.

        Args:
            first_latents: (B, C, h, w) of the first frames, in the VAE's scaled space; (B, C, K, h, w) of the frames
                `image_frames`.
            prompt_embeds, negative_prompt_embeds: (B, L, D) or (1, L, D).
            strokes: B items by kind, `object` and `camera`; a mode other than `both` takes all of them alike. Or flow
                maps (B, 2, T, H, W), for a network that is conditioned on the flow map only.
            mode: also `controlnet`, the motion ControlNet without LoRA, and `none`, no motion ControlNet at all.
            latents: noise (B, C, T, h, w), or (S, B, C, T, h, w).
            batch_branches: run branches of one LoRA as one batch; None: only on a GPU. On a CPU it saves no time.
            on_step, options: see `CallOptions` and, for sampling settings, `SamplingOptions`.

        Returns:
            Latents in the VAE's scaled space, of the shape of `latents`.

        Raises:
            ValueError: the mode is unknown or its LoRA is not loaded, or an input is missing or of another shape.
        """
        settings = self.settings.changed(options)
        guidance = settings.guidance(mode)
        branches = guidance.branches()
        if guidance.scale != 1 and negative_prompt_embeds is None:
            raise ValueError("negative_prompt_embeds: needed for a guidance_scale other than 1")
        if missing := {each.lora for each in branches if each.lora} - set(loaded_loras(self.motion_controlnet)):
            raise ValueError(
                f"mode: {mode} needs the LoRA {', '.join(sorted(missing))}, which this model does not have"
            )

        noises = latents if latents.ndim == 6 else latents[None]
        batch, frames = noises.shape[1], noises.shape[3]
        if not 1 <= frames <= (longest := self.unet.config.motion_max_seq_length):
            raise ValueError(f"num_frames: this model makes 1 to {longest} frames, got {frames}")
        device, dtype = self._execution_device, self.unet.dtype
        images = (first_latents if first_latents.ndim == 5 else first_latents[:, :, None]).to(device, dtype)
        first = images[:, :, 0]
        if first.shape[0] != batch:
            raise ValueError(f"first_latents: {first.shape[0]} images for {batch} noises; give one for each")
        texts = {"text": prompt_embeds, "null": negative_prompt_embeds}
        network = self.motion_controlnet
        inputs = make_inputs(images, image_frames, texts, strokes, branches, network, self.vae, frames)
        if batch_branches is None:
            batch_branches = device.type == "cuda"

        with (
            fused_loras(network, {branch.lora for branch in branches}) as switch,
            self.progress_bar(total=settings.num_inference_steps) as progress,
        ):
            predictions = BranchPredictions(
                self.unet,
                self.image_controlnet,
                network,
                switch,
                inputs,
                batched(branches) if batch_branches else [[branch] for branch in branches],
                settings.control_scales(),
                settings.residual_interval,
                self.image_cache,
            )
            scheduler = make_scheduler(self.scheduler, settings, device)

            def after_step(estimate: Tensor) -> None:
                progress.update()
                if on_step is not None:
                    on_step(lambda: self.latent_space.from_model(estimate[0], first))

            x = run_loop(predictions, guidance, scheduler, noises.to(device, dtype), after_step)
        return torch.stack([self.latent_space.from_model(each, first) for each in x]).view(latents.shape)

    def _image_latents(self, image: Any, image_latents: Tensor | None) -> tuple[Tensor, str]:
        """Latents (1, C, K, h, w) of the images, and what was cropped off the first."""
        if image_latents is not None:
            return (image_latents if image_latents.ndim == 5 else image_latents[:, :, None]), ""
        if self.vae is None:
            raise ValueError("image: this pipeline has no VAE; give image_latents")
        pixels, cropped = fit_images(image, (self.settings.width, self.settings.height))
        return self.foundation.encode_images(pixels.to(self._execution_device)).transpose(0, 1)[None], cropped

    def _embedded(self, argument: str, text: str | None, embeds: Tensor | None) -> Tensor:
        if embeds is not None:
            return embeds
        if self.text_encoder is None:
            raise ValueError(f"{argument}: this pipeline has no text encoder; give {argument}_embeds")
        return self.foundation.encode_text([text or ""])

    def _output(self, latents: Tensor, output_type: str) -> list[list[Image.Image]] | np.ndarray | Tensor:
        if output_type == "latent":
            return latents
        videos = self.foundation.decode(latents).permute(0, 1, 3, 4, 2).float().cpu().numpy()
        return videos if output_type == "np" else [self.numpy_to_pil(video) for video in videos]
