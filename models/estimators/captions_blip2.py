"""Captions by BLIP-2 (Li et al., 2023)."""

from typing import Any

import numpy as np
import torch

from models.estimators import EstimatorUnavailable


def load(name: str, model: str) -> "Blip2":
    """`model` is a hub id or a local folder."""
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    on_gpu = torch.cuda.is_available()
    try:
        processor = Blip2Processor.from_pretrained(model)
        network = Blip2ForConditionalGeneration.from_pretrained(model, dtype=torch.float16 if on_gpu else torch.float32)
    except OSError as error:
        raise EstimatorUnavailable(
            f"captions.estimator: blip2: {model} cannot be loaded ({error}). Give a local folder in captions.model, "
            "give the captions in captions.csv, or set captions.estimator to none"
        ) from error
    return Blip2(processor, network.to("cuda" if on_gpu else "cpu").eval())


class Blip2:
    def __init__(self, processor: Any, network: Any) -> None:
        self.processor, self.network = processor, network

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> list[str]:
        """See `Captioner`."""
        inputs = self.processor(images=list(images), return_tensors="pt")
        tokens = self.network.generate(**inputs.to(self.network.device, self.network.dtype), max_new_tokens=30)
        return [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
