"""Which of the clips that were made are kept. Everything was measured before, so a threshold costs no clip anew.

In order: near-duplicates, quality, camera, the share with the least motion, balance of the camera's classes. Each step
sees what the ones before it left.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from models.curation.camera import CameraClass, camera_class
from models.curation.duplicates import Candidate, near_duplicates
from models.curation.motion import least_motion
from models.curation.outcome import Facts, Step


@dataclass(frozen=True)
class Rules:
    """None switches a rule off. Measures are those of `Facts`; `camera_classes` lists the classes to keep.

    near_duplicates: bits of 64, mean over the frames, by which the same footage may differ.
    max_class_share: largest share of the kept clips that one class of camera motion may have.
    drop_share: share of the clips, those with the least motion, to drop (Sec 2.2, step 3).
    """

    near_duplicates: float | None
    max_black: float | None
    max_frozen: float | None
    min_brightness: float | None
    min_sharpness: float | None
    max_text: float | None
    static_below: float
    camera_classes: Collection[CameraClass] | None
    max_object_share: float | None
    max_class_share: float | None
    drop_share: float


class Source(NamedTuple):
    """The video that a clip was made of: its name, and the hash of its content."""

    video: str
    content: str


Reasons = dict[str, tuple[Step, str]]
FindRepeats = Callable[[list[Candidate], float], dict[str, str]]


def select(
    clips: Mapping[str, Facts],
    sources: Mapping[str, Source],
    rules: Rules,
    find_repeats: FindRepeats = near_duplicates,
) -> Reasons:
    """Why clips are dropped: clip -> step, reason. A clip that is not named is kept.

    Args:
        clips: clip -> what was measured; all of a split.
        sources: The content decides between equals.
        find_repeats: `near_duplicates`, or what gives the same.
    """
    reasons = _duplicates(clips, sources, rules, find_repeats)
    for step in (_quality, _camera, _motion, _balance):
        left = {name: facts for name, facts in clips.items() if name not in reasons}
        reasons |= step(left, sources, rules)
    return reasons


def class_of(facts: Facts, rules: Rules) -> CameraClass:
    """The class of camera motion of a clip under these rules."""
    return camera_class(facts.pan, facts.zoom, facts.roll, rules.static_below)


def _duplicates(
    clips: Mapping[str, Facts], sources: Mapping[str, Source], rules: Rules, find_repeats: FindRepeats
) -> Reasons:
    """Of clips that are alike, the one of the largest picture is kept."""
    if rules.near_duplicates is None:
        return {}
    candidates = [
        Candidate(name, facts.signature, (-(facts.width or 0) * (facts.height or 0), sources[name].content))
        for name, facts in clips.items()
        if facts.signature
    ]
    repeats = find_repeats(candidates, rules.near_duplicates)
    return {name: ("duplicate", f"near-duplicate of {sources[better].video}") for name, better in repeats.items()}


def _quality(clips: Mapping[str, Facts], sources: Mapping[str, Source], rules: Rules) -> Reasons:
    reasons: Reasons = {}
    for name, facts in clips.items():
        if _above(facts.black, rules.max_black):
            reasons[name] = "quality", f"black: {facts.black:.0%} of its frames, allowed {rules.max_black:.0%}"
        elif _above(facts.frozen, rules.max_frozen):
            reasons[name] = "quality", f"frozen: {facts.frozen:.0%} of its steps, allowed {rules.max_frozen:.0%}"
        elif _below(facts.brightness, rules.min_brightness):
            reasons[name] = "quality", f"dark: brightness {facts.brightness:.0f}, wanted {rules.min_brightness:g}"
        elif _below(facts.sharpness, rules.min_sharpness):
            reasons[name] = "quality", f"blurred: sharpness {facts.sharpness:.0f}, wanted {rules.min_sharpness:g}"
        elif _above(facts.text_share, rules.max_text):
            reasons[name] = "quality", f"text: {facts.text_share:.1%} of the picture, allowed {rules.max_text:.1%}"
    return reasons


def _camera(clips: Mapping[str, Facts], sources: Mapping[str, Source], rules: Rules) -> Reasons:
    reasons: Reasons = {}
    for name, facts in clips.items():
        kind = class_of(facts, rules)
        if rules.camera_classes is not None and kind not in rules.camera_classes:
            reasons[name] = "camera", f"camera: {kind}, wanted {', '.join(rules.camera_classes)}"
        elif _above(facts.object_share, rules.max_object_share):
            share = f"{facts.object_share:.0%} of the picture, allowed {rules.max_object_share:.0%}"
            reasons[name] = "camera", f"moving objects: {share}"
    return reasons


def _motion(clips: Mapping[str, Facts], sources: Mapping[str, Source], rules: Rules) -> Reasons:
    scores = {name: facts.motion_score for name, facts in clips.items() if facts.motion_score is not None}
    share = f"among the lowest {rules.drop_share:.0%} of the split"
    return {
        name: ("motion", f"little motion: score {scores[name]:.1f} is {share}")
        for name in least_motion(scores, rules.drop_share)
    }


def _balance(clips: Mapping[str, Facts], sources: Mapping[str, Source], rules: Rules) -> Reasons:
    """Of a class that is too common, clips are kept in order of content, so that few change sides when clips come."""
    if rules.max_class_share is None:
        return {}
    members: dict[CameraClass, list[str]] = defaultdict(list)
    for name, facts in clips.items():
        members[class_of(facts, rules)].append(name)
    most = most_of_a_class([len(names) for names in members.values()], rules.max_class_share)
    return {
        name: ("balance", f"balance: {len(names)} clips with camera {kind}, {most} are {rules.max_class_share:.0%}")
        for kind, names in members.items()
        for name in sorted(names, key=lambda name: (sources[name].content, name))[most:]
    }


def most_of_a_class(counts: list[int], share: float) -> int:
    """The largest m such that classes cut to m clips have at most `share` of what is left each.

    If there is none, as with too few classes, nothing can be balanced: the size of the largest class.
    """
    for most in range(max(counts, default=0), 0, -1):
        cut = [min(count, most) for count in counts]
        if max(cut) <= share * sum(cut):
            return most
    return max(counts, default=0)


def _above(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit


def _below(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value < limit
