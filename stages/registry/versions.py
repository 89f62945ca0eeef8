"""The versions of the model in MLflow's registry, the alias of the one that serves, and its history.

Two tags of the registered model hold what MLflow does not keep: `alias_history`, the versions that had the alias, and
`alias_held`, why the alias does not move by itself.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.sampling.identity import weights_hash
from models.sampling.saved_model import SETTINGS_FILE
from stages.data.items import content_hash, item_id
from stages.data.paths import REGISTRATION
from stages.params import Params
from stages.run.mlflow_store import connect

HISTORY, HELD = "alias_history", "alias_held"
IDENTITY = "model"  # tag of a version: `identity` of its folder
NOT_FOUND = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")  # what MLflow's errors call it
EVIDENCE = "challenge.json"  # file of a version's run: the values of each video, see `stages.registry.challenge`


class NoSuchVersion(UserError):
    """The registry has no version of this number, or none to go back to."""


class RegistryError(UserError):
    """The registry did not answer. That says nothing of what it holds."""


class Versions:
    """The registered model that params.yaml names."""

    def __init__(self, params: Params):
        self._mlflow, self.experiment = connect(params.mlflow)
        self._client = self._mlflow.MlflowClient()
        self.error: type[Exception] = self._mlflow.exceptions.MlflowException
        self.name, self.alias = params.register_.model_name, params.register_.alias

    def champion(self) -> Any | None:
        """The version that has the alias; None if there is none. Raises RegistryError."""
        with self._nothing_if_not_found():
            if self.alias in self._client.get_registered_model(self.name).aliases:
                return self._client.get_model_version_by_alias(self.name, self.alias)
        return None

    def get(self, version: str) -> Any:
        """A version by its number. Raises NoSuchVersion, RegistryError."""
        with self._nothing_if_not_found():
            return self._client.get_model_version(self.name, version)
        raise NoSuchVersion(f"{self.name} has no version {version}; `make ui` lists them")

    def same_as(self, folder: Path) -> Any | None:
        """The newest version with the weights and settings of a saved model's folder whose files can be read."""
        query = f"name = '{self.name}' and tags.`{IDENTITY}` = '{identity(folder)}'"
        found = self._client.search_model_versions(query)
        for version in sorted(found, key=lambda each: -int(each.version)):
            try:
                self.decision(version)
                self.folder(version)
            except (OSError, UserError, self.error):
                continue
            return version
        return None

    def with_weights(self, weights: str) -> list[Any]:
        """All versions of these weights, whatever their settings; the newest comes first."""
        query = f"name = '{self.name}' and tags.`weights` = '{weights}'"
        return sorted(self._client.search_model_versions(query), key=lambda each: -int(each.version))

    def commit_of(self, run: str) -> str:
        """The git commit of a run; `unknown` if the run is gone."""
        try:
            return self._client.get_run(run).data.tags.get("git_commit", "unknown")
        except self.error:
            return "unknown"

    def decision(self, version: Any) -> dict[str, Any]:
        """What was decided when a version was registered; see `stages.register`. MLflow's errors are passed on."""
        return self._mlflow.artifacts.load_dict(f"runs:/{version.run_id}/{REGISTRATION.name}")

    def evidence(self, version: Any) -> dict[str, Any] | None:
        """The values by which a version was compared with the champion; None if there was no champion."""
        try:
            return self._mlflow.artifacts.load_dict(f"runs:/{version.run_id}/{EVIDENCE}")
        except (OSError, self.error):
            return None

    def folder(self, version: Any) -> Path:
        """The saved model's folder of a version, fetched if it is remote. MLflow's errors are passed on."""
        address = f"models:/{self.name}/{version.version}/artifacts/model"
        return Path(self._mlflow.artifacts.download_artifacts(artifact_uri=address))

    def tag(self, version: str, tags: dict[str, str], description: str) -> None:
        """Set tags and the description of a version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, version, key, value)
        self._client.update_model_version(self.name, version, description)

    def move_alias(self, version: str) -> None:
        """Give a version the alias, and add it to the history."""
        self.get(version)
        self._client.set_registered_model_alias(self.name, self.alias, version)
        history = self.history()
        if history[-1:] != [version]:
            self._set(HISTORY, json.dumps([*history, version]))

    def go_back(self) -> str:
        """Give the alias to the version that had it before, and return its number. Raises NoSuchVersion."""
        champion = self.champion()
        earlier = [each for each in self.history() if champion is None or each != str(champion.version)]
        if not earlier:
            raise NoSuchVersion(f"{self.name}: no earlier version had the alias {self.alias}; name one by --to")
        self.get(earlier[-1])
        self._client.set_registered_model_alias(self.name, self.alias, earlier[-1])
        self._set(HISTORY, json.dumps(earlier))
        return earlier[-1]

    def history(self) -> list[str]:
        """The versions that had the alias, in order of time. A version that was rolled back is no longer in it."""
        return json.loads(self._tags().get(HISTORY, "[]"))

    def held(self) -> str | None:
        """Why the alias stays where it is; None if a better model may take it."""
        return self._tags().get(HELD)

    def hold(self, reason: str) -> None:
        """Keep the alias where it is until `release_hold`."""
        self._set(HELD, reason)

    def release_hold(self) -> None:
        """Let a better model take the alias again."""
        if self.held() is not None:
            self._client.delete_registered_model_tag(self.name, HELD)

    def _tags(self) -> dict[str, str]:
        with self._nothing_if_not_found():
            return self._client.get_registered_model(self.name).tags
        return {}

    @contextmanager
    def _nothing_if_not_found(self) -> Iterator[None]:
        """Go on after the block if MLflow has no such model or version. Raises RegistryError for its other errors."""
        try:
            yield
        except self.error as error:
            if getattr(error, "error_code", None) not in NOT_FOUND:
                reason = str(error).partition("\n")[0]
                raise RegistryError(f"registry: {self.name}: {reason}; try again when the registry answers") from error

    def _set(self, key: str, value: str) -> None:
        self._client.set_registered_model_tag(self.name, key, value)


def identity(folder: Path) -> str:
    """One hash of what a saved model's folder makes of a request: its weights and its settings."""
    return item_id(weights_hash(folder), content_hash(folder / SETTINGS_FILE))
