"""Captions by a vision-language model: Qwen2-VL (Wang et al., 2024) or Qwen2.5-VL (Bai et al., 2025)."""

import json
from typing import Any

import numpy as np
import torch

from models.estimators import EstimatorUnavailable
from models.origins.addresses import NotPublished, local_place

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl")
REQUEST = "Describe what this picture shows in one short sentence of at most twelve words."
MAX_NEW_TOKENS = 40


def load(name: str, model: str) -> "QwenVl":
    """`model` is a hub id, with `@revision` or without, or a local folder; its weights are safetensors.

    Raises:
        EstimatorUnavailable: it cannot be had, or is no model of this kind.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    on_gpu = torch.cuda.is_available()
    try:
        folder = local_place(model)
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind not in MODEL_TYPES:
            raise ValueError(f"its config.json names the model_type {kind}, not {' or '.join(MODEL_TYPES)}")
        processor = AutoProcessor.from_pretrained(folder)
        network, loading = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
        if loading["missing_keys"]:  # transformers would only warn, and fill them with random numbers
            raise ValueError(f"its weights lack {min(loading['missing_keys'])}")
    except (NotPublished, OSError, ValueError, RuntimeError) as error:
        raise EstimatorUnavailable(
            f"captions.estimator: qwen_vl: {model} cannot be loaded ({str(error).partition(chr(10))[0]}). Give a hub "
            "id or a local folder of Qwen2-VL or Qwen2.5-VL in captions.model (Qwen/Qwen2.5-VL-3B-Instruct), give the "
            "captions in captions.csv, or set captions.estimator to none"
        ) from error
    return QwenVl(processor, network.to("cuda" if on_gpu else "cpu").eval())


class QwenVl:
    """A Qwen-VL with its processor. The images of a call, all of one size, are one batch; each token is
    the likeliest."""

    def __init__(self, processor: Any, network: Any) -> None:
        self.processor, self.network = processor, network

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> list[str]:
        """See `Captioner`."""
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": REQUEST}]}
        request = self.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
        inputs = self.processor(images=list(images), text=[request] * len(images), return_tensors="pt")
        tokens = self.network.generate(**inputs.to(self.network.device), max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(answers, skip_special_tokens=True)
        return [" ".join(text.split()).rstrip(".") for text in texts]
