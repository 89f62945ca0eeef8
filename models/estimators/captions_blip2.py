"""Captions by BLIP-2 (Li et al., 2023)."""

import json
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from models.estimators import EstimatorUnavailable
from models.origins.addresses import local_place


def load(name: str, model: str) -> "Blip2":
    """`model` is a hub id, with `@revision` or without, or a local folder.

    Raises:
        EstimatorUnavailable: it cannot be had, or is no BLIP-2.
    """
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    on_gpu = torch.cuda.is_available()
    try:
        folder = local_place(model)
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind != "blip-2":  # transformers would only warn, and fill what is missing with random numbers
            raise ValueError(f"its config.json names the model_type {kind}, not blip-2")
        processor = Blip2Processor.from_pretrained(folder)
        network, loading = Blip2ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float16 if on_gpu else torch.float32, output_loading_info=True
        )
        if loading["missing_keys"]:
            raise ValueError(f"its weights lack {min(loading['missing_keys'])}")
    except (OSError, ValueError, RuntimeError, UnpicklingError) as error:
        raise EstimatorUnavailable(
            f"captions.estimator: blip2: {model} cannot be loaded ({str(error).partition(chr(10))[0]}). Give a hub id "
            "or a local folder in captions.model, give the captions in captions.csv, or set captions.estimator to none"
        ) from error
    if network.config.image_token_index is None:  # folders saved before that key was there
        network.config.image_token_index = network.config.text_config.vocab_size - 1
    if getattr(network.config.text_config, "bos_token_id", None) is None:  # T5: its empty text is the end token alone
        network.config.text_config.bos_token_id = network.config.text_config.eos_token_id
    return Blip2(processor, network.to("cuda" if on_gpu else "cpu").eval())


class Blip2:
    """BLIP-2 with its processor. The image token marks the places that the picture's features replace, so that any
    word of the vocabulary that captions do not begin with does for it."""

    def __init__(self, processor: Any, network: Any) -> None:
        self.processor, self.network = processor, network

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> list[str]:
        """See `Captioner`."""
        inputs = self.processor(images=list(images), return_tensors="pt")
        tokens = self.network.generate(**inputs.to(self.network.device, self.network.dtype), max_new_tokens=30)
        return [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
