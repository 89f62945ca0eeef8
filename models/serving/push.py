"""The command `image-conductor push`: a saved model and its card to a repository on the hub.

`HF_ENDPOINT` and `HF_TOKEN` hold.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from models.errors import UserError

CARD = "README.md"


class PushError(UserError):
    """A model that did not reach the hub; the message says what to do."""


def add_push(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", default_model: str) -> None:
    """Describe the command to the parser of `image-conductor`."""
    push = commands.add_parser("push", help="upload a saved model with a model card to the hub")
    push.set_defaults(run=push_model)
    push.add_argument("--repo", required=True, metavar="OWNER/NAME", help="repository; made if it is not there")
    push.add_argument("--model", default=default_model, help="saved model, or models:/name@alias; default: %(default)s")
    push.add_argument("--licence", default="other", help="of the weights, by the hub's names; default: %(default)s")
    push.add_argument("--public", action="store_true", help="let everybody see it; private if left out")


def push_model(options: argparse.Namespace) -> None:
    """Upload a model's folder as one commit, and say where it is."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    from models.sampling.model_index import copy_loras_for_download, write_index
    from models.sampling.saved_model import read_settings
    from models.serving.load import model_folder

    if options.repo.count("/") != 1:
        raise PushError(f"--repo: expected OWNER/NAME, got {options.repo!r}")
    source = model_folder(options.model)
    if not (source / "motion_controlnet").is_dir():
        raise PushError(f"--model: {source}: no motion_controlnet; expected a saved model")
    with tempfile.TemporaryDirectory() as holder:
        folder = Path(holder) / "model"
        shutil.copytree(source, folder)
        copy_loras_for_download(folder)
        write_index(folder, read_settings(folder))
        (folder / CARD).write_text(model_card(options.repo, options.licence, folder), encoding="utf-8")
        hub = HfApi()
        try:
            hub.create_repo(options.repo, private=not options.public, exist_ok=True)
            commit = hub.upload_folder(repo_id=options.repo, folder_path=folder, commit_message="Upload the model")
        except HFValidationError as error:
            raise PushError(f"--repo: {str(error).splitlines()[0]}") from None
        except (HfHubHTTPError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise PushError(
                f"--repo: {options.repo}: not uploaded: {reason}; is HF_TOKEN one that may write?"
            ) from None
    print(f"{commit.commit_url}\nuse it: DiffusionPipeline.from_pretrained({options.repo!r}, trust_remote_code=True)")


def model_card(repository: str, licence: str, folder: Path) -> str:
    """The text of the card: what the model is, its settings, how to use it, what it is made of.

    Args:
        folder: the saved model.
    """
    from models.sampling.saved_model import read_settings

    settings = read_settings(folder)
    parts = "\n".join(f"| `{part.name}` | {_megabytes(part)} |" for part in sorted(folder.iterdir()) if part.is_dir())
    return f"""---
license: {licence}
library_name: diffusers
pipeline_tag: image-to-video
tags: [image-conductor, trajectory-control]
---

# {repository.partition("/")[2]}

An Image Conductor model: a still image, drawn trajectories and a prompt become a video of {settings.frames} frames of
{settings.width}x{settings.height} pixels. The trajectories move the objects or the camera. The method is that of the
paper *Image Conductor: Precision Control for Interactive Video Synthesis*.

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{repository}", trust_remote_code=True)
strokes = {{"width": 384, "height": 256, "trajectories": [[[136, 133], [206, 110]]]}}
frames = pipe(image, "a red circle", strokes, mode="object").frames[0]
```

The project `image-conductor` must be installed.

| setting | value |
|---|---|
| sampling steps | {settings.num_inference_steps}, {settings.solver} |
| guidance scale | {settings.guidance_scale} |
| trajectory guidance scale | {settings.trajectory_guidance_scale} |

| part | MB |
|---|---|
{parts}
"""


def _megabytes(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f}"
