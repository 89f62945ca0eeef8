"""How: networks, LoRA, guidance, sampler, strokes, estimators, metrics.

Knows nothing of DVC and Prefect, and `models.serving` alone knows MLflow.
"""
