"""What the figures of an evaluation say, claim by claim: the table that the report opens with."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WANTED_OF_STILL = 0.25  # error over that of a still copy, at most
WANTED_OF_REST = 0.1  # share of an object's stroke that the background may follow
WANTED_OF_SCENE = 0.75  # share of a camera's stroke that the background must follow
WANTED_OF_BOTH = 1.3  # error of mode `both` over that of the mode alone, at most
WANTED_OF_OBJECT = 0.02  # share of the strokes that guidance may cost the object
WANTED_PSNR = 31.0  # dB, of frame 0 against the picture
STEPS = ("no_control", "start", "controlnet")  # before the LoRA


class Reading(NamedTuple):
    """What one tracker measured, in words, and whether the claim holds by it."""

    text: str
    holds: bool


class Claim(NamedTuple):
    """A sentence, what was wanted, and a reading by each tracker, or one that needs no tracker."""

    sentence: str
    wanted: str
    readings: list[Reading]

    @property
    def verdict(self) -> str:
        held = {reading.holds for reading in self.readings}
        return "trackers differ" if len(held) > 1 else "yes" if held == {True} else "no"


def claims_of(figures: Mapping[str, Any]) -> list[Claim]:
    """The claims of the figures of metrics/evaluation.json; one whose figures are missing is left out."""
    pair = figures["trackers"]["first"], figures["trackers"]["second"]
    leakage, both = figures["leakage"], figures.get("both", {})
    claims = [
        _of_still("Camera strokes move the whole picture.", figures["cam_mc"], "camera_lora"),
        _of_still("An object stroke moves the object.", figures["obj_mc"], "object_lora"),
        _share(
            "In object mode the rest of the picture stays where it is.",
            leakage.get("object_mode_background"),
            f"at most {WANTED_OF_REST:.0%} of the stroke",
            at_most=WANTED_OF_REST,
        ),
        _share(
            "In camera mode the same stroke takes the whole picture along.",
            leakage.get("camera_mode_background"),
            f"at least {WANTED_OF_SCENE:.0%} of the stroke",
            at_least=WANTED_OF_SCENE,
        ),
        _training("Each step of training makes camera motion more exact.", figures["cam_mc"], "camera_lora"),
        _training("Each step of training makes object motion more exact.", figures["obj_mc"], "object_lora"),
        _guidance(figures["guidance"], pair),
        _both("Beside a moving camera, the object is as exact as alone.", both, "object"),
        _both("Beside a moving object, the camera is as exact as alone.", both, "camera"),
        _first_frame(figures["fidelity"]),
    ]
    return [claim for claim in claims if claim is not None]


def _by_tracker(entry: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return entry, entry["second"]


def _of_still(sentence: str, table: Mapping[str, Any], method: str) -> Claim:
    still = table["still"]["px"]
    readings = [
        Reading(f"{entry['px'] / still:.2f} of a still copy's error", entry["px"] <= WANTED_OF_STILL * still)
        for entry in _by_tracker(table[method])
    ]
    return Claim(sentence, f"at most {WANTED_OF_STILL:g}", readings)


def _share(
    sentence: str, entry: Mapping[str, Any] | None, wanted: str, at_least: float = -1.0, at_most: float = float("inf")
) -> Claim | None:
    if entry is None:
        return None
    readings = [
        Reading(f"background follows {100 * part['share']:.0f} %", at_least <= part["share"] <= at_most)
        for part in _by_tracker(entry)
    ]
    return Claim(sentence, wanted, readings)


def _training(sentence: str, table: Mapping[str, Any], lora: str) -> Claim:
    rows = [_by_tracker(table[name]) for name in (*STEPS, lora) if name in table]
    readings = [_falls(entries) for entries in zip(*rows, strict=True)]
    return Claim(sentence, "falls at each step, intervals apart", readings)


def _falls(entries: Sequence[Mapping[str, Any]]) -> Reading:
    apart = all(after["ci95"][1] < before["ci95"][0] for before, after in zip(entries, entries[1:], strict=False))
    return Reading(f"{' → '.join(format(entry['px'], '.1f') for entry in entries)} px", apart)


def _guidance(by_tracker: Mapping[str, Any], pair: tuple[str, str]) -> Claim | None:
    readings = []
    for tracker in pair:
        scales = by_tracker[tracker]["all"].get("scales", {})
        if len(scales) < 2:
            return None
        most = scales[max(scales, key=float)]
        background, share = most["background_px"], most["object_share"]
        rests = background["change_ci95"][1] < 0 and abs(share["change"]) <= WANTED_OF_OBJECT
        text = f"background {background['change']:+.2f} px, object's share {share['change']:+.3f}"
        readings.append(Reading(text, rests))
    return Claim(
        "More camera-free guidance (Eq. 5) brings the background to rest.",
        f"less drift, interval below 0; the object within {WANTED_OF_OBJECT:.0%}",
        readings,
    )


def _both(sentence: str, both: Mapping[str, Any], name: str) -> Claim | None:
    if name not in both or f"{name}_alone" not in both:
        return None
    readings = []
    for together, alone in zip(_by_tracker(both[name]), _by_tracker(both[f"{name}_alone"]), strict=True):
        ratio = together["px"] / alone["px"]
        readings.append(
            Reading(f"{together['px']:.1f} px, alone {alone['px']:.1f}: {ratio:.2f} times", ratio <= WANTED_OF_BOTH)
        )
    return Claim(sentence, f"at most {WANTED_OF_BOTH:g} times", readings)


def _first_frame(fidelity: Mapping[str, Any]) -> Claim:
    psnr = min(fidelity[mode]["psnr"] for mode in ("camera_lora", "object_lora"))
    return Claim(
        "The video begins with the picture.",
        f"at least {WANTED_PSNR:g} dB",
        [Reading(f"{psnr:.1f} dB", psnr >= WANTED_PSNR)],
    )
