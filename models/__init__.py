"""How: networks, LoRA, guidance, sampler, trajectories, estimators, metrics.

Knows nothing of DVC, Prefect or MLflow (the pyfunc module apart).
"""

from models.torchvision_ops import ensure_torchvision_ops

ensure_torchvision_ops()
