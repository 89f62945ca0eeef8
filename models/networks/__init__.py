"""The networks (Sec 2.3):

networks                denoising UNet, image ControlNet, motion ControlNet
codec                   the linear codec of the pocket foundation, behind the interface of a VAE
latent_space            how VAE latents become the variable of the diffusion model
foundation              the frozen base as one folder: networks, codec, text encoder, scheduler
seeded                  random starts
shared_files            weights that every user of the machine may read
gradient_checkpointing  recompute activations in the backward pass
"""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
