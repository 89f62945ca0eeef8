"""How: networks, LoRA, guidance, sampler, trajectories, estimators, metrics. Knows nothing of DVC, Prefect or MLflow."""

from models.torchvision_ops import ensure_torchvision_ops

ensure_torchvision_ops()
