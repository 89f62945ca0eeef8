"""`params.yaml` as typed, validated objects: the one place where parameters are read.

from models.errors import UserError
from models.curation.camera import CameraClass
from models.estimators import NEURAL, Kind
from models.modes import Condition, Solver
from stages.params import load_params
params = load_params()          # ./params.yaml
params.clips.interval           # (1, 16)
"""

import sys
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from models.curation.camera import CameraClass
from models.errors import UserError
from models.estimators import NEURAL, Kind
from models.modes import Condition, Precision, Solver

Split = Literal["mixed", "camera"]
SPLITS: tuple[Split, Split] = ("mixed", "camera")

Source = Literal["synthetic", "folder", "webvid", "realestate10k"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
T = TypeVar("T")
Seed = Annotated[int, Field(ge=0)]
Range = Annotated[tuple[Count, Count], Field(description="[lowest, highest]")]


class ParamsError(UserError):
    """A parameter file that cannot be used; the message names file, key and remedy."""


class _Loader(yaml.SafeLoader):
    """Booleans of YAML 1.2, as DVC writes them (`dvc exp run -S`): `no` and `off` are words."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if first in "tTfF" or tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class PerSplit(Section, Generic[T]):
    mixed: T
    camera: T

    def __getitem__(self, split: Split) -> T:
        return getattr(self, split)


class VideoParams(Section):
    width: Annotated[int, Field(ge=32, multiple_of=8)]
    height: Annotated[int, Field(ge=32, multiple_of=8)]
    clip_frames: Annotated[int, Field(ge=2)]
    frames: Annotated[int, Field(ge=2)]
    fps: Count

    @model_validator(mode="after")
    def _a_training_item_fits_in_a_clip(self) -> Self:
        if self.frames > self.clip_frames:
            raise ValueError(f"frames ({self.frames}) must not exceed clip_frames ({self.clip_frames})")
        return self


class SyntheticParams(Section):
    world: Literal["procedural", "pictures"]
    pictures: str
    mixed: Count
    camera: Count
    moving_camera: Share
    movers: Annotated[int, Field(ge=1, le=3)]
    width: Annotated[int, Field(ge=32)]
    height: Annotated[int, Field(ge=32)]
    frames: Range
    fps: Count


class WebVidParams(Section):
    csv: str
    videos: str


class RealEstate10KParams(Section):
    cameras: str
    videos: str


class CollectParams(Section):
    source: Source | PerSplit[Source]
    seed: Seed
    synthetic: SyntheticParams
    folder: PerSplit[str]
    webvid: WebVidParams
    realestate10k: RealEstate10KParams

    def source_of(self, split: Split) -> Source:
        return self.source if isinstance(self.source, str) else self.source[split]


class QualityParams(Section):
    """Limits beyond which a clip is dropped; null switches a check off."""

    max_black: Share | None
    max_frozen: Share | None
    min_brightness: Annotated[float, Field(ge=0, le=255)] | None
    min_sharpness: Positive | None
    max_text: Share | None


class CameraParams(Section):
    static_below: Share
    classes: PerSplit[Annotated[list[CameraClass], Field(min_length=1)] | None]
    max_object_share: PerSplit[Share | None]
    max_class_share: PerSplit[Share | None]


class RaftParams(Section):
    """weights: a file of torchvision's; null asks the hub."""

    model: Literal["large", "small"]
    weights: str | None


class ClipsParams(Section):
    seed: Seed
    cuts: Literal["adaptive", "content", "transnet"]
    scenes: Literal["longest", "all"]
    margin: Annotated[int, Field(ge=0)]
    crop_bars: bool
    flow: Literal["raft", "dis"]
    raft: RaftParams
    text: Literal["rapidocr", "none"]
    interval: Range
    near_duplicates: Annotated[float, Field(ge=0, le=64)] | None
    quality: QualityParams
    camera: CameraParams
    drop_share: PerSplit[Share]
    held_out: Share
    validation: Share

    @model_validator(mode="after")
    def _a_limit_needs_its_measure(self) -> Self:
        if self.quality.max_text is not None and self.text == "none":
            raise ValueError("quality.max_text needs text: rapidocr; set it, or set quality.max_text to null")
        return self

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        if self.held_out + self.validation > 1:
            raise ValueError(f"held_out ({self.held_out}) and validation ({self.validation}) exceed 1 together")
        return self

    def flow_options(self) -> dict[str, Any]:
        """What the flow estimator's `load` is given."""
        return self.raft.model_dump() if self.flow == "raft" else {}


class CaptionsParams(Section):
    estimator: Literal["blip2", "qwen_vl", "none"]
    model: str


class CoTrackerParams(Section):
    """weights: a checkpoint file; null asks torch hub."""

    model: Literal["cotracker3_offline", "cotracker2"]
    weights: str | None


class TrackLimitsParams(Section):
    """Limits beyond which a clip is dropped for its tracks; null switches a check off."""

    min_seen_middle: Share | None
    min_seen_last: Share | None
    max_round_trip: Positive | None
    max_own_motion: PerSplit[Share | None]


class TracksParams(Section):
    estimator: Literal["cotracker", "lucas_kanade", "template"]
    grid: Annotated[int, Field(ge=2)]
    cotracker: CoTrackerParams
    round_trip: bool
    hide_drifted: Positive | None
    limits: TrackLimitsParams

    @model_validator(mode="after")
    def _drift_is_measured_both_ways(self) -> Self:
        if self.hide_drifted is not None and not self.round_trip:
            raise ValueError("hide_drifted needs round_trip: true")
        return self

    def options(self) -> dict[str, Any]:
        """What the estimator's `load` is given."""
        return self.cotracker.model_dump() if self.estimator == "cotracker" else {}


class SparseFlowsParams(Section):
    seed: Seed
    draws: Count
    max_tracks: Count


class TrackQualityParams(Section):
    scenes: Count
    width: Annotated[int, Field(ge=32)]
    height: Annotated[int, Field(ge=32)]
    frames: Annotated[int, Field(ge=2)]
    camera_step: Positive
    object_step: Positive


class CurationReportParams(Section):
    clips: Count
    examples: Count
    pairs: Count


class PretrainParams(Section):
    seed: Seed
    output: str
    start: str | None
    warp_start: bool
    world: Literal["procedural", "pictures"]
    pictures: str
    codec: Literal["linear", "lapped"]
    codec_images: Count
    codec_steps: Count
    refiner_width: Count
    latent_channels: Count
    pool: Count
    reuse: Count
    steps: Count
    batch_size: Count
    precision: Precision
    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    decay_share: Share
    ema_decay: Share
    timestep_power: Positive
    dense_share: Share
    caption_dropout: Share
    channels: Annotated[list[Count], Field(min_length=1)]
    norm_groups: Count
    heads: Count
    motion_heads: Count
    text_width: Count
    condition: Annotated[list[Condition], Field(min_length=1)]
    flow_scale: Positive
    checkpoint_every: Count
    validate_every: Count
    sampler_steps: Annotated[list[Count], Field(min_length=1)]


class FoundationParams(Section):
    source: str | None
    base: str | None
    motion_adapter: str | None
    image_controlnet: str | None

    @model_validator(mode="after")
    def _one_way_to_get_it(self) -> Self:
        parts = (self.base, self.motion_adapter, self.image_controlnet)
        if self.source is None and None in parts:
            raise ValueError("give source, or all of base, motion_adapter and image_controlnet")
        if self.source is not None and any(parts):
            raise ValueError("give source, or base + motion_adapter + image_controlnet, not both")
        return self


class LatentsParams(Section):
    batch_size: Count
    precision: Precision


class GuidanceParams(Section):
    """l_cfg, from 1; l_trajs of Eq. 5, where null is plain guidance; the rescaling of a guided prediction."""

    scale: Annotated[float, Field(ge=1)]
    trajectory_scale: float | None
    rescale: Share


class ValidationParams(Section):
    every: Count
    clips: Count
    sampler_steps: Count
    guidance: GuidanceParams
    patience: Count | None


class TrainingParams(Section):
    """What the three trained stages share. `source`: a folder whose weights are taken, and nothing is trained."""

    source: str | None
    seed: Seed
    batch_size: Count
    caption_dropout: Share
    learning_rate: Positive
    timestep_power: Positive
    ema_decay: Share
    max_grad_norm: Positive
    checkpoint_every: Count
    checkpoint_every_minutes: Positive | None
    mixed_precision: Precision
    micro_batch_size: Count
    gradient_checkpointing: bool
    validation: ValidationParams


class MotionControlNetParams(TrainingParams):
    """`start`: a folder whose weights training begins with; null: the image ControlNet's encoder, outputs at zero."""

    start: str | None
    condition: Annotated[list[Condition], Field(min_length=1)]
    flow_scale: Positive
    dense_steps: Annotated[int, Field(ge=0)]
    sparse_warmup_steps: Annotated[int, Field(ge=0)]
    sparse_steps: Annotated[int, Field(ge=0)]


class LoraParams(TrainingParams):
    rank: Count
    steps: Count


class CameraLoraParams(LoraParams):
    single_stroke_share: Share


class ObjectLoraParams(LoraParams):
    orthogonal_loss: Literal["off", "identity", "orthogonal"]
    orthogonal_weight: Annotated[float, Field(ge=0)]


class SamplerParams(Section):
    num_inference_steps: Count
    guidance_scale: Annotated[float, Field(ge=1)]
    trajectory_guidance_scale: float | None
    guidance_rescale: Share
    solver: Solver
    residual_interval: Count


class EvaluateParams(Section):
    seed: Seed
    images: Count
    trajectory_guidance_scales: Annotated[list[float], Field(min_length=1)]
    features: Literal["inception, i3d", "codec"]
    inception_weights: str | None
    i3d_weights: str | None
    batch_size: Count
    precision: Precision


class PersonalLoraParams(Section):
    """A community LoRA that the registered model gets (Sec 3.2)."""

    path: str
    weight: float


class RegisterParams(Section):
    model_name: str
    alias: str
    precision: Precision
    max_cam_mc_ratio: Positive
    max_obj_mc_ratio: Positive
    minimum_gain: Share
    temporary_experiments: bool
    checkpoint: str | None
    personal_loras: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], PersonalLoraParams]


class ComputeParams(Section):
    backend: Literal["serial", "processes", "dask"]
    workers: Count | None
    address: str | None
    training_processes: Count | None
    processes_per_gpu: Count

    @model_validator(mode="after")
    def _dask_needs_an_address(self) -> Self:
        if self.backend == "dask" and self.address is None:
            raise ValueError("backend dask needs address, for example tcp://scheduler:8786")
        return self


class MLflowParams(Section):
    tracking_uri: str
    artifact_location: str | None  # null: where the tracking server puts them
    experiment: str
    seconds_to_send: Positive
    system_metrics_seconds: Positive | None


class ServeParams(Section):
    """Limits of the service, see `models.serving.limits.Limits`."""

    max_body_mb: Count
    max_json_depth: Count
    max_number_digits: Count
    max_points: Count
    max_pixels: Count
    max_records: Count
    max_work: Count
    queue_length: Count
    body_seconds: Positive
    base_seconds: Positive
    seconds_per_step: Positive
    shutdown_seconds: Positive
    finished_jobs: Count


class FlowsParams(Section):
    gpu_slots: Count
    wait_minutes: Positive
    notify: Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")] | None
    git_commit: bool


class Params(Section):
    profile: str
    video: VideoParams
    collect: CollectParams
    clips: ClipsParams
    captions: CaptionsParams
    tracks: TracksParams
    sparse_flows: SparseFlowsParams
    track_quality: TrackQualityParams
    curation_report: CurationReportParams
    pretrain: PretrainParams
    foundation: FoundationParams
    latents: LatentsParams
    motion_controlnet: MotionControlNetParams
    camera_lora: CameraLoraParams
    object_lora: ObjectLoraParams
    sampler: SamplerParams
    evaluate: EvaluateParams
    register_: Annotated[RegisterParams, Field(alias="register")]
    compute: ComputeParams
    mlflow: MLflowParams
    serve: ServeParams
    flows: FlowsParams

    def estimator(self, kind: Kind) -> str:
        """The name of the estimator of a kind."""
        names: dict[Kind, str] = {
            "cuts": self.clips.cuts,
            "flow": self.clips.flow,
            "text": self.clips.text,
            "tracks": self.tracks.estimator,
            "captions": self.captions.estimator,
        }
        return names[kind]

    def is_neural(self, kind: Kind) -> bool:
        """Whether the estimator of a kind is a neural network, which wants a GPU."""
        return self.estimator(kind) in NEURAL

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        for key, (low, high) in {
            "clips.interval": self.clips.interval,
            "collect.synthetic.frames": self.collect.synthetic.frames,
        }.items():
            if low > high:
                raise ValueError(f"{key}: [{low}, {high}] must be [lowest, highest]")
        return self


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file.

    Raises:
        ParamsError: the file is missing, is no YAML, or a key is unknown, absent or has a value that is not allowed.
            The message has one line per problem: file, key, what was found, what is allowed.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; copy profiles/pocket.yaml or profiles/paper.yaml there") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ParamsError(f"{path}: expected sections ({', '.join(_section_names())}), found {type(raw).__name__}")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError("\n".join(_problem(path, e) for e in error.errors())) from None


def _section_names() -> list[str]:
    return [field.alias or name for name, field in Params.model_fields.items()]


def _problem(path: Path, error: ErrorDetails) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "(whole file)"
    if error["type"] == "extra_forbidden":
        return f"{path}: {key}: unknown key; allowed here: {', '.join(_allowed_keys(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{path}: {key}: missing; see profiles/pocket.yaml for its default"
    return f"{path}: {key}: {error['msg']} (found {error['input']!r})"


def _allowed_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Params
    for part in location:
        for name, field in model.model_fields.items():
            if part in (name, field.alias) and isinstance(field.annotation, type):
                model = field.annotation
    return [field.alias or name for name, field in model.model_fields.items()]


def _main() -> None:
    """Print one value: `python -m stages.params mlflow.tracking_uri`."""
    key = sys.argv[1]
    try:
        value = load_params().model_dump(mode="json", by_alias=True)
        for part in key.split("."):
            value = value[part]
    except ParamsError as error:
        sys.exit(str(error))
    except (KeyError, TypeError):
        sys.exit(f"{key}: no such key in params.yaml")
    print(value)


if __name__ == "__main__":
    _main()
