"""Which predictions a sampling step needs, and how guidance joins them (Sec 2.5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from torch import Tensor

from models.modes import LORAS, MODES, Lora, SamplingMode
from models.sampling.guidance import camera_and_object, camera_free, classifier_free, rescaled


class Branch(NamedTuple):
    """One prediction: its LoRA on the motion ControlNet, its prompt, and its strokes (None: no motion ControlNet)."""

    lora: Lora | None
    prompt: Literal["null", "text"]
    strokes: Literal["all", "camera", "object"] | None = "all"


OBJECT = Branch("object", "text")


@dataclass(frozen=True)
class Guidance:
    """How the predictions of one sampling step become one.

    mode: `camera` and `object` use their LoRA in every branch, unless Eq. 5 anchors object mode to theta_0. `both` is
        always anchored to theta_0. `controlnet` has no LoRA. `none` has no motion ControlNet.
    scale: l_cfg; 1 leaves out the null branch.
    trajectory_scale: l_trajs of Eq. 5 in object mode, l_obj in mode `both` (None there: 1); None in object mode is
        plain classifier-free guidance.
    rescale: 0 to 1, see `models.sampling.guidance.rescaled`.
    """

    mode: SamplingMode
    scale: float
    trajectory_scale: float | None = None
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in get_args(SamplingMode):
            raise ValueError(f"mode: {self.mode!r} is unknown; use {', '.join(MODES)}")

    @property
    def anchor(self) -> Branch:
        """The branch with text that classifier-free guidance works on."""
        if self.mode == "camera":
            return Branch("camera", "text")
        if self.mode == "object" and self.trajectory_scale is None:
            return OBJECT
        return Branch(None, "text", None if self.mode == "none" else "all")

    def branches(self) -> list[Branch]:
        """The predictions that a sampling step needs."""
        branches = [self.anchor] if self.scale == 1 else [self._null, self.anchor]
        if self.mode == "both":
            branches += [Branch(lora, "text", strokes) for strokes in LORAS for lora in (strokes, None)]
        elif self.mode == "object" and self.trajectory_scale is not None:
            branches += [OBJECT]
        return branches

    def join(self, predictions: Mapping[Branch, Tensor]) -> Tensor:
        """One prediction from those of `branches`. In mode `both`, l_cam is 1.

        `rescale` moves the standard deviation of the result towards that of a reference prediction: the object LoRA's
        where Eq. 5 is used, otherwise the anchor's.
        """
        return rescaled(self._guided(predictions), predictions.get(OBJECT, predictions[self.anchor]), self.rescale)

    @property
    def _null(self) -> Branch:
        return self.anchor._replace(prompt="null")

    def _guided(self, predictions: Mapping[Branch, Tensor]) -> Tensor:
        text = predictions[self.anchor]
        null = predictions.get(self._null, text)
        if self.mode == "both":
            object_scale = 1.0 if self.trajectory_scale is None else self.trajectory_scale
            camera, object_ = (
                (predictions[Branch(strokes, "text", strokes)], predictions[Branch(None, "text", strokes)])
                for strokes in LORAS
            )
            return camera_and_object(null, text, camera, object_, self.scale, 1.0, object_scale)
        if self.mode == "object" and self.trajectory_scale is not None:
            return camera_free(null, text, predictions[OBJECT], self.scale, self.trajectory_scale)
        return classifier_free(null, text, self.scale)


def batched(branches: Sequence[Branch]) -> list[list[Branch]]:
    """Branches grouped by LoRA and strokes: each group can run as one batch."""
    groups: dict[tuple[Lora | None, str | None], list[Branch]] = {}
    for branch in branches:
        groups.setdefault((branch.lora, branch.strokes), []).append(branch)
    return list(groups.values())
