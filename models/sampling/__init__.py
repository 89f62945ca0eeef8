"""The sampler (Sec 2.5): from an image, a prompt and strokes to a video.

guidance         classifier-free guidance, Eq. 5, both LoRAs at once: formulas
branches         which predictions a step needs, and how guidance joins them
predictions      the predictions of one step, with nothing computed twice
loop             from noise to latents, step by step
inputs           picture, texts and strokes as the networks take them
settings         frame size, frames and sampling settings of a model
call             options and output of a call of the pipeline
pipeline         `ImageConductorPipeline`, which joins all of these
saved_model      the folder of a saved model
model_index      the files of that folder that diffusers looks for
by_diffusers     the pipeline as diffusers calls it
identity         which model a pipeline is: hashes, version
adapters         switching the motion ControlNet between its LoRAs
personalisation  community checkpoints and LoRAs on the base
lora_files       files of community LoRAs, read and checked
lycoris          the update of a layer in LoHa and LoKr files
"""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
