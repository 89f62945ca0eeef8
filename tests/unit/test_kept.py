"""Results that are kept: exactly what would be computed again, and computed again when an input changes."""

from types import SimpleNamespace

import numpy as np
import pytest

from models.curation.duplicates import FRAMES, Candidate, near_duplicates
from models.curation.outcome import Facts
from models.curation.shared_footage import PER_SCENE, Shared, find_shared
from stages.curation import comparisons
from stages.data.measures import MeasuredClip


@pytest.fixture
def computed(monkeypatch, tmp_path):
    """The names of functions that were computed and not read."""
    monkeypatch.chdir(tmp_path)
    names = []

    def watch(function):
        def watched(*given):
            names.append(function.__name__)
            return function(*given)

        watched.__module__, watched.__qualname__ = function.__module__, function.__qualname__
        monkeypatch.setattr(comparisons, function.__name__, watched)

    watch(near_duplicates)
    watch(find_shared)
    return names


def candidates(*changed_bits):
    rng = np.random.default_rng(0)
    plain = rng.bytes(8 * FRAMES)
    words = [bytes([plain[0] ^ bits]) + plain[1:] for bits in changed_bits] + [rng.bytes(8 * FRAMES)]
    return [Candidate(f"clip {i}", word.hex(), (-i, f"content {i}")) for i, word in enumerate(words)]


def test_near_duplicates_are_searched_again_only_after_a_change(computed):
    for given in (
        (candidates(0, 1), 4.0),
        (candidates(0, 3), 4.0),  # a signature
        (candidates(0, 3)[1:], 4.0),  # one clip less
        (candidates(0, 3), 0.0),  # the threshold
        ([Candidate(c.name, c.signature, (0, c.name)) for c in candidates(0, 3)], 4.0),  # the ranks
    ):
        expected, before = near_duplicates(*given), len(computed)
        for _ in range(2):
            found = comparisons.find_near_duplicates("mixed", *given)
            assert list(found.items()) == list(expected.items())
        assert len(computed) == before + 1
    kept = comparisons.KEPT / "mixed/near_duplicates.json"
    for damaged in (b"", b"[]", kept.read_bytes()[:-4]):
        kept.write_bytes(damaged)
        assert comparisons.find_near_duplicates("mixed", *given) == expected
    assert len(computed) == before + 4


def test_a_change_of_the_code_is_noticed(computed, monkeypatch):
    comparisons.find_near_duplicates("mixed", candidates(0, 1), 4.0)
    monkeypatch.setattr("stages.run.kept.code_of", lambda function: {"changed": "code"})
    comparisons.find_near_duplicates("mixed", candidates(0, 1), 4.0)
    assert computed == ["near_duplicates"] * 2


def test_shared_footage_is_searched_again_only_after_a_change(computed):
    rng = np.random.default_rng(0)
    scene = np.zeros(PER_SCENE, [("frame", ">u4"), ("hash", ">u8")])
    scene["frame"], scene["hash"] = range(PER_SCENE), rng.integers(0, 1 << 63, PER_SCENE)
    other = scene.copy()
    other["hash"][: PER_SCENE // 4] = 0
    prints = {"a": scene.tobytes().hex(), "b": other.tobytes().hex()}
    for _ in range(2):
        for print_of_b in (prints["b"], prints["b"], prints["b"].replace("0" * 16, "f" * 16)):
            found = {name: [MeasuredClip(name, Facts())] for name in prints}
            found["a"][0].facts.footage, found["b"][0].facts.footage = prints["a"], print_of_b
            listed = [SimpleNamespace(item=name, content=name) for name in prints]
            pairs = comparisons.shared_footage("mixed", listed, found)
            assert pairs == find_shared(prints | {"b": print_of_b}) and isinstance(pairs[0], Shared)
            assert found["a"][0].facts.footage is None
    assert computed == ["find_shared"] * 4
