"""Which model a pipeline is: the hash of its weights, its version in a registry, and what was loaded on top."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class AddedWeights:
    """Community weights on top of a saved model. lora: its name, empty for a checkpoint. sha256: of the file."""

    lora: str
    sha256: str


@dataclass(frozen=True)
class ModelIdentity:
    """weights: `weights_hash` of the saved model's folder. registered: name/version in MLflow's registry, if the model
    came from there. added: in the order in which they were loaded."""

    weights: str
    registered: str = ""
    added: tuple[AddedWeights, ...] = ()

    def with_added(self, lora: str, file: Path) -> "ModelIdentity":
        """The same model with a community LoRA, or with a checkpoint if `lora` is empty."""
        return replace(self, added=(*self.added, AddedWeights(lora, file_hash(file))))

    def as_registered(self, registered: str) -> "ModelIdentity":
        """The same weights as another version, or none, of a registry."""
        return replace(self, registered=registered)


def weights_hash(folder: str | Path) -> str:
    """One hash (20 hex digits) for all `.safetensors` files below `folder`, by their names and contents."""
    folder = Path(folder)
    files = sorted(folder.rglob("*.safetensors"))
    named = [(path.relative_to(folder).as_posix(), file_hash(path)) for path in files]
    return hashlib.sha256(json.dumps([named]).encode()).hexdigest()[:20]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
