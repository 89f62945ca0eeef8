"""How: networks, LoRA, guidance, sampler, trajectories, estimators, metrics.

Knows nothing of DVC, Prefect or MLflow (the pyfunc module apart).
"""

from models.torchvision_ops import prepare_torchvision

prepare_torchvision()
