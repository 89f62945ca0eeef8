"""Names of what strokes move: the LoRAs, the modes of a request, and the further modes of the evaluation."""

from typing import Literal, get_args

Lora = Literal["camera", "object"]
Mode = Literal["camera", "object", "both"]
SamplingMode = Literal["camera", "object", "both", "controlnet", "none"]
"""`controlnet` is the motion ControlNet without LoRA; `none` is the foundation without motion ControlNet."""
Solver = Literal["ddim", "dpmsolver++"]
Precision = Literal["no", "bf16", "fp16"]
"""Of networks on a GPU; `no` is float32."""
Condition = Literal["flow", "first_frame_latents", "first_frame_as_camera"]

LORAS: tuple[Lora, ...] = get_args(Lora)
MODES: tuple[Mode, ...] = get_args(Mode)
