"""Which predictions a sampling step needs, and how guidance joins them (Sec 2.5)."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from torch import Tensor

from models import guidance

Lora = Literal["camera", "object"]
Mode = Literal["camera", "object", "both"]
Sampling = Literal["camera", "object", "both", "base", "none"]

LORAS: tuple[Lora, ...] = get_args(Lora)
MODES: tuple[Mode, ...] = get_args(Mode)


class Branch(NamedTuple):
    """One prediction: the LoRA on the motion ControlNet, the prompt, and the strokes it sees (None: no ControlNet)."""

    lora: Lora | None
    prompt: Literal["null", "text"]
    strokes: Literal["all", "camera", "object"] | None = "all"


def plan(mode: Sampling, scale: float, trajectory_scale: float | None) -> list[Branch]:
    """Branches of a sampling step.

    Args:
        mode: `camera` and `object` put their LoRA in all branches, unless Eq. 5 anchors object mode to theta_0; `both`
            is always anchored; `base` has no LoRA, `none` no motion ControlNet.
        scale: l_cfg; 1 leaves out the null branch.
        trajectory_scale: l_trajs; a number asks for Eq. 5 in object mode.

    Raises:
        ValueError: the mode is unknown.
    """
    if mode not in get_args(Sampling):
        raise ValueError(f"mode: {mode!r} is unknown; use {', '.join(MODES)}")
    anchor = _anchor(mode, trajectory_scale)
    branches = [anchor] if scale == 1 else [anchor._replace(prompt="null"), anchor]
    if mode == "both":
        branches += [Branch(lora, "text", strokes) for strokes in LORAS for lora in (strokes, None)]
    elif mode == "object" and trajectory_scale is not None:
        branches += [Branch("object", "text")]
    return branches


def alike(branches: Sequence[Branch]) -> list[list[Branch]]:
    """Branches of one LoRA and the same strokes together: those that can run as one batch."""
    groups: dict[tuple, list[Branch]] = {}
    for branch in branches:
        groups.setdefault((branch.lora, branch.strokes), []).append(branch)
    return list(groups.values())


def combine(
    mode: Sampling,
    predictions: Mapping[Branch, Tensor],
    scale: float,
    trajectory_scale: float | None,
    rescale: float = 0.0,
) -> Tensor:
    """Join the predictions of `plan`'s branches, made with the same arguments. In mode `both` l_cam is 1.

    `rescale` gives the result more of the spread of a single prediction, see `guidance.rescaled`: that under the object
    LoRA where Eq. 5 steers, else the anchor's, both with the text.
    """
    guided = _guided(mode, predictions, scale, trajectory_scale)
    reference = predictions.get(Branch("object", "text"), predictions[_anchor(mode, trajectory_scale)])
    return guidance.rescaled(guided, reference, rescale)


def _guided(
    mode: Sampling, predictions: Mapping[Branch, Tensor], scale: float, trajectory_scale: float | None
) -> Tensor:
    anchor = _anchor(mode, trajectory_scale)
    text = predictions[anchor]
    null = predictions.get(anchor._replace(prompt="null"), text)
    if mode == "both":
        object_scale = 1.0 if trajectory_scale is None else trajectory_scale
        camera, object_ = (
            (predictions[Branch(strokes, "text", strokes)], predictions[Branch(None, "text", strokes)])
            for strokes in LORAS
        )
        return guidance.camera_and_object(null, text, camera, object_, scale, 1.0, object_scale)
    if mode == "object" and trajectory_scale is not None:
        return guidance.camera_free(null, text, predictions[Branch("object", "text")], scale, trajectory_scale)
    return guidance.classifier_free(null, text, scale)


def _anchor(mode: Sampling, trajectory_scale: float | None) -> Branch:
    """The branch with text that classifier-free guidance works on."""
    if mode == "camera" or (mode == "object" and trajectory_scale is None):
        return Branch(mode, "text")
    return Branch(None, "text", None if mode == "none" else "all")
