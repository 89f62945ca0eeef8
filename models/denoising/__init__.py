"""From strokes and noisy latents to a prediction and its loss:

flow_maps      tracks -> blurred flow maps (Sec 2.2)
strokes        tracks of a batch
conditions     flow maps and further channels -> the condition of the motion ControlNet
denoiser       eps_theta(z_t, t, c_txt, c_img, c_trajs)
loss           the denoising loss (Eq. 1 and 3)
plain_sampler  a few steps of DDIM without guidance, for validation
"""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
