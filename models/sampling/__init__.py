"""The sampler (Sec 2.5): from an image, a prompt and strokes to a video.

guidance         classifier-free guidance, Eq. 5, both LoRAs at once: formulas
branches         which predictions a step needs, and how guidance joins them
predictions      the predictions of one step, with nothing computed twice
loop             from noise to latents, step by step
inputs           picture, texts and strokes as the networks take them
settings         what a model was made for, its sampling settings
call             what a call of the pipeline takes and gives
pipeline         all of it: `ImageConductorPipeline`
saved_model      the folder of a saved model
adapters         switching the motion ControlNet between its LoRAs
personalisation  community checkpoints and LoRAs on the base
"""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
