"""Guidance (Sec 2.5): how several predictions of the denoiser become one.

Weights sum to 1, so each formula holds for epsilon, sample, velocity and residual predictions alike.
`null` is the prediction without text. Image and trajectories stay in all branches.
"""

from torch import Tensor


def classifier_free(null: Tensor, text: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: eps(null) + l_cfg (eps(c) - eps(null)).

    Args:
        null, text: predictions without and with the text, of one shape.
        scale: l_cfg; 1 gives `text` itself.
    """
    return null + scale * (text - null)


def camera_free(null: Tensor, text: Tensor, trajectory: Tensor, scale: float, trajectory_scale: float) -> Tensor:
    """Camera-free guidance (Sec 2.5, Eq. 5).

    eps_0(null) + l_cfg (eps_0(c) - eps_0(null)) + l_trajs (eps_trajs(c) - eps_0(c)), where theta_0 is the motion
    ControlNet without LoRA and theta_trajs has the object LoRA.

    Args:
        null, text: predictions of theta_0 without and with the text.
        trajectory: prediction of theta_trajs, with the text.
        scale, trajectory_scale: l_cfg and l_trajs; (1, 1) gives `trajectory` itself.
    """
    return classifier_free(null, text, scale) + trajectory_scale * (trajectory - text)


def rescaled(guided: Tensor, reference: Tensor, rescale: float) -> Tensor:
    """A guided prediction with the standard deviation of one without guidance (Lin et al., 2024, Sec 3.4).

    Guidance extrapolates. This changes the standard deviation of a prediction, and with it contrast and detail of the
    video. The effect is strongest with few steps.

    Args:
        guided, reference: predictions (..., C, T, h, w) of one shape.
        rescale: 0 leaves `guided` as it is, 1 gives each video the reference's standard deviation.
    """
    if rescale == 0:
        return guided
    video = (-4, -3, -2, -1)
    spread = reference.std(video, keepdim=True) / guided.std(video, keepdim=True)
    return guided * (1 + rescale * (spread - 1))


def camera_and_object(
    null: Tensor,
    text: Tensor,
    camera: tuple[Tensor, Tensor],
    object_: tuple[Tensor, Tensor],
    scale: float,
    camera_scale: float,
    object_scale: float,
) -> Tensor:
    """Both LoRAs at once, composed around theta_0: Eq. 5 with a difference for each kind of stroke.

    eps_0(null) + l_cfg (eps_0(c) - eps_0(null)) + l_cam (eps_cam(c_cam) - eps_0(c_cam))
    + l_obj (eps_obj(c_obj) - eps_0(c_obj)). theta_0 sees all strokes and reconciles their motion. Each difference is
    what one LoRA adds to its own strokes. Without camera strokes this is Eq. 5.

    Args:
        null, text: predictions of theta_0 under all strokes, without and with the text.
        camera: predictions of theta_cam and theta_0 under the camera strokes.
        object_: predictions of theta_obj and theta_0 under the object strokes.
        scale, camera_scale, object_scale: l_cfg, l_cam, l_obj.
    """
    steered = camera_scale * (camera[0] - camera[1]) + object_scale * (object_[0] - object_[1])
    return classifier_free(null, text, scale) + steered
