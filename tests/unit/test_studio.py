"""The studio without its page: videos with progress and cancel, measured errors, history, the same video elsewhere."""

import argparse
import base64
import io
import json
import shlex
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from PIL import Image

from models.errors import UserError
from models.serving.cli import main
from models.serving.load import load_model
from models.serving.studio.clips import ClipShelf
from models.serving.studio.drawing import read_drawing, with_strokes
from models.serving.studio.estimate import warped_frames
from models.serving.studio.form import EQ_5, PLAIN, SOLVER_OF_MODEL, Form
from models.serving.studio.history import History
from models.serving.studio.importing import strokes_of_files, strokes_of_video
from models.serving.studio.measured import as_plain
from models.serving.studio.recipe import as_request
from models.serving.studio.sampler import LocalSampler, RemoteSampler
from models.serving.studio.start import add_studio_options
from models.serving.studio.wish import make_wish
from models.serving.studio.work import Studio
from models.video.write import encode_mp4
from stages.data.paths import clip_videos
from tests.footage import moving_texture
from tests.unit.tiny import pipeline

FORM = Form("a lake", "", "follow the drawing", 5, True, 2, SOLVER_OF_MODEL, None, PLAIN, 1.1)


def picture_url(width=48, height=32) -> str:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def drawing(**fields) -> str:
    file = {"trajectories": [[[10, 10], [30, 12]], [[5, 5]]], "times": [[0, 1], [0]]} | fields
    return json.dumps({"image": picture_url(), "width": 48, "height": 32, "strokes": [], "file": file})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sampler(model):
    """One for all tests: models are not loaded in several threads at once."""
    return LocalSampler(str(model), lambda tell: load_model(str(model)))


@pytest.fixture
def studio(model, sampler, tmp_path):
    return made_in(tmp_path, sampler, str(model))


def made_in(folder, sampler, model="model", limit=10**9, history="history", endpoint="http://127.0.0.1:5001") -> Studio:
    """A studio whose files lie in a folder of the test."""
    (folder / "made").mkdir(exist_ok=True)
    return Studio(sampler, History(folder / history, limit), folder / "made", model, endpoint)


def test_a_video_is_made_measured_and_kept(studio, tmp_path):
    updates = list(studio.make("me", drawing(), FORM))
    assert "Step 2 of 2" in [update.text for update in updates]
    entry = updates[-1].entry
    assert entry is not None and updates[-1].text == "Done. Seed 5."
    assert "| object 1 |" in entry.facts["errors"] and "| pin 2 |" in entry.facts["errors"]
    again = History(tmp_path / "history", 10**9).find(entry.name)
    assert again is not None and Form(*again.facts["form"]) == FORM and json.loads(again.drawing())["width"] == 48
    assert len(again.frames()) == 3
    assert studio.overlaid(entry, True, True) != studio.overlaid(entry, False, False) == str(entry.video)
    went_on = json.loads(studio.onward(entry.name))
    assert (went_on["width"], went_on["height"]) == (24, 16)
    assert went_on["strokes"][0]["points"][0] == pytest.approx([14.75, 5.75], abs=0.01)
    studio.history.remove(entry.name)
    assert studio.history.entries() == []


@pytest.fixture
def later_pictures(tmp_path):
    """A form with a larger picture of the last frame, and strokes that act for half of the steps."""
    Image.effect_noise((96, 80), 90).save(tmp_path / "last.jpg")
    return FORM._replace(
        control_scale=0.5, control_end=0.5, keyframes=[str(tmp_path / "last.jpg")], keyframe_numbers="2"
    )


@pytest.mark.parametrize("guidance", [PLAIN, EQ_5])
def test_the_command_line_gives_the_same_video(studio, tmp_path, later_pictures, guidance):
    form = later_pictures if guidance == PLAIN else FORM
    entry = list(studio.make("me", drawing(), form._replace(trajectory_guidance=guidance)))[-1].entry
    words = shlex.split(entry.facts["recipes"][0])
    assert words[0] == "image-conductor"
    main([*words[1:-1], str(tmp_path / "again.mp4")])
    assert (tmp_path / "again.mp4").read_bytes() == entry.video.read_bytes()


def test_python_gives_the_same_video(studio, tmp_path, later_pictures, monkeypatch):
    entry = list(studio.make("me", drawing(), later_pictures))[-1].entry
    monkeypatch.chdir(tmp_path)
    exec(entry.facts["recipes"][1], {})
    assert (tmp_path / "video.mp4").read_bytes() == entry.video.read_bytes()


def test_a_request_to_a_scoring_server_gives_the_same_video(studio, later_pictures, model):
    from models.serving.image import PixelBudget
    from models.serving.make_video import make_video
    from models.serving.request import Request

    entry = list(studio.make("me", drawing(), later_pictures))[-1].entry
    assert "picture of frame 2: cropped" in entry.facts["errors"]
    assert Form(*entry.facts["form"]).keyframes == [str(entry.folder / "keyframe-2.png")]
    (record,) = json.loads((entry.folder / "request.json").read_text())["inputs"]
    wish = Request(**record).wish((24, 16), PixelBudget(10_000))
    assert make_video(load_model(str(model)), wish).data == entry.video.read_bytes()


@pytest.fixture
def server(model):
    """The address of a server that answers as a scoring server does, with the tiny model."""
    from models.serving.image import PixelBudget
    from models.serving.make_video import make_video
    from models.serving.request import Request

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            (record,) = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
            try:
                facts = make_video(network, Request(**record).wish((24, 16), PixelBudget(10_000)))._asdict()
                facts["video"] = base64.b64encode(facts.pop("data")).decode()
                status, body = 200, {"predictions": [facts]}
            except UserError as error:
                status, body = 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": f"inputs[0].{error}"}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    network = load_model(str(model))
    running = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()
    thread.join()


def test_a_running_server_makes_the_same_video(studio, server, tmp_path):
    remote = made_in(tmp_path, RemoteSampler(server), history="remote")
    updates = list(remote.make("me", drawing(frames=81), FORM))
    assert "The server is working" in [update.text for update in updates]
    here = list(studio.make("me", drawing(frames=81), FORM))[-1].entry
    there = updates[-1].entry
    assert there.video.read_bytes() == here.video.read_bytes()
    for entry in (here, there):
        assert "Note: strokes of 81 frames were resampled in time to 3." in entry.facts["errors"]


def test_curl_gives_the_same_video(studio, server, tmp_path, later_pictures):
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    here = made_in(tmp_path, studio._sampler, history="it's here", endpoint=server)
    entry = list(here.make("me", drawing(), later_pictures))[-1].entry
    command = entry.facts["recipes"][2].replace("| python ", f"| {shlex.quote(sys.executable)} ")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / "video.mp4").read_bytes() == entry.video.read_bytes()


def test_a_setting_that_a_server_does_not_take_is_said_so(studio, server, tmp_path):
    remote = made_in(tmp_path, RemoteSampler(server), history="remote")
    with pytest.raises(UserError, match="solver: a scoring server samples with the solver of its model"):
        list(remote.make("me", drawing(), FORM._replace(solver="dpmsolver++")))
    recipe = list(studio.make("me", drawing(), FORM._replace(solver="dpmsolver++")))[-1].entry.facts["recipes"][2]
    assert recipe.startswith("# The server takes the solver of its model. This video was made with dpmsolver++.\ncurl")


def test_a_refusal_of_the_server_and_a_server_that_is_gone_are_said(server):
    checked = read_drawing(drawing())
    wish = make_wish(checked, FORM)
    bad = as_request(checked, wish) | {"seed": -1}
    with pytest.raises(UserError, match=r"inputs\[0\].seed: "):
        RemoteSampler(server).sample(wish, bad, lambda done, total, picture: None)
    with pytest.raises(UserError, match="no video came back"):
        RemoteSampler("http://127.0.0.1:1").sample(wish, bad, lambda done, total, picture: None)


def test_what_was_changed_on_the_picture_is_said(studio):
    buffer = io.BytesIO()
    Image.new("RGBA", (48, 32), (0, 255, 0, 0)).save(buffer, "PNG")
    clear = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    entry = list(studio.make("me", json.dumps(json.loads(drawing()) | {"image": clear}), FORM))[-1].entry
    assert "over white" in entry.facts["errors"]


def test_variations_are_videos_with_seeds_that_count_up_and_previews_come_while_they_are_made(studio, monkeypatch):
    monkeypatch.setattr("models.serving.studio.work.PREVIEW_EVERY", 0.0)
    updates = list(studio.make("me", drawing(), FORM._replace(variations=3.0)))
    made = [update.entry for update in updates if update.entry]
    assert [entry.facts["seed"] for entry in made] == [5, 6, 7] and updates[-1].text == "Video 3 of 3. Done. Seed 7."
    assert [Form(*entry.facts["form"]).seed for entry in made] == [5, 6, 7]
    assert [update.running for update in updates if update.entry] == [True, True, False]
    previews = [update.preview for update in updates if update.preview]
    assert len(previews) == 3 and all(data.startswith(b"\xff\xd8") for data in previews)
    (alone,) = [update.entry for update in studio.make("me", drawing(), FORM._replace(seed=6)) if update.entry]
    assert alone.video.read_bytes() == made[1].video.read_bytes()
    shown = studio.compared([entry.name for entry in made] + ["gone"], True, False)
    assert [title for _, title in shown.values()] == ["seed 5", "seed 6", "seed 7"]


def test_cancel_stops_the_sampler_between_two_steps(studio):
    texts = []
    for update in studio.make("me", drawing(), FORM._replace(steps=50)):
        texts.append(update.text)
        if update.text.startswith("Step 1 "):
            studio.cancel("me")
    assert texts[-1].startswith("Cancelled") and "Step 50 of 50" not in texts
    assert studio.history.entries() == []
    assert list(studio.make("me", drawing(), FORM))[-1].entry is not None


def test_sessions_take_turns(studio):
    done = []
    threads = [
        threading.Thread(target=lambda n=n: done.append(list(studio.make(str(n), drawing(), FORM))[-1].entry))
        for n in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({entry.name for entry in done}) == len(studio.history.entries()) == 10
    assert len({entry.video.read_bytes() for entry in done}) == 1


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        (None, FORM, "picture: drop"),
        ("[]", FORM, "drawing: not readable"),
        (json.dumps({"image": "data:image/png;base64,!!"}), FORM, "image: not valid base64"),
        (json.dumps({"image": "data:image/svg+xml;base64,PHN2Zz4="}), FORM, "image: not a readable PNG or JPEG"),
        (json.dumps({"image": picture_url()}), FORM, "strokes: draw at least one"),
        (drawing(trajectories=[[["<b>", 1]]]), FORM, r"trajectories\[0\]\[0\]\[0\]"),
        (drawing(trajectories=[[[500, 10]]], times=[[0]]), FORM, "never comes onto the picture"),
        (drawing(), FORM._replace(prompt="x" * 3000), "prompt: at most 2000"),
        (drawing(), FORM._replace(prompt="\ud800"), "prompt: holds half a character"),
        (drawing(), FORM._replace(seed=-1), "seed: must be a whole number"),
        (drawing(), FORM._replace(seed=float("inf")), "seed: must be a whole number"),
        (drawing(), FORM._replace(seed=float("nan")), "seed: must be a whole number"),
        (drawing(), FORM._replace(steps=float("nan")), "steps: must be from 1 to 200"),
        (drawing(), FORM._replace(keyframe_numbers="9" * 5000), "later pictures: 0 files need"),
        (drawing(), FORM._replace(steps=900), "steps: must be from 1 to 200"),
        (drawing(), FORM._replace(guidance=0.5), "guidance: must be from 1 to 50"),
        (drawing(), FORM._replace(control_scale=-1), "strength of the strokes: must be from 0 to 10, got -1"),
        (drawing(), FORM._replace(control_start=0.4, control_end=0.6), "no whole step of 2 lies between 0.4 and 0.6"),
        (drawing(), FORM._replace(variations=9), "variations: must be from 1 to 8, got 9"),
        (drawing(), FORM._replace(personal_loras="style"), "personal LoRAs: expected names and weights"),
        (drawing(), FORM._replace(personal_loras="style=900"), "personal LoRAs: style: must be from -100 to 100"),
        (drawing(), FORM._replace(personal_loras="nobody=0.5"), "personal_loras: nobody is not loaded"),
        (drawing(), FORM._replace(keyframe_numbers="2"), "later pictures: 0 files need as many frame numbers"),
        (drawing(), FORM._replace(mode="both"), "camera_trajectories: mode both needs"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(studio, text, form, message):
    with pytest.raises(ValueError, match=message):
        list(studio.make("me", text, form))


def test_what_no_editor_sends_is_replaced_before_others_open_it():
    value = json.loads(drawing())
    head, content = value["image"].split(",")
    evil = [{"kind": "<b>", "points": [[1, 2]]}, "x", {"kind": "pin", "points": [["1", 2]]}]
    for strokes in (evil, "alert(1)", None, [{"kind": "pin", "points": [[1e300, 1]], "speed": "steady"}]):
        sent = value | {"image": f"javascript:{head},{content}", "width": "<b>", "strokes": strokes}
        kept = json.loads(read_drawing(json.dumps(sent)).text)
        assert kept["image"].startswith("data:image/jpeg;base64,") and kept["width"] == 48
        assert [stroke["kind"] for stroke in kept["strokes"]] == ["object", "pin"]
    mine = [{"kind": "pin", "points": [[5, 5]], "start": 0, "end": 1, "speed": "steady"}]
    assert json.loads(read_drawing(json.dumps(value | {"strokes": mine})).text)["strokes"] == mine


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"move": "pan_left", "share": NaN, "width": 9, "height": 9}', "[" * 10**5]
)
def test_a_camera_move_that_no_editor_asks_for_gives_no_strokes(text):
    widgets = pytest.importorskip("models.serving.studio.widgets", reason="gradio is not installed")
    assert widgets.camera_move(text) == [] and "error" in widgets.estimate_frames(text)


def test_a_model_that_is_not_there_is_said_so(tmp_path):
    sampler = LocalSampler("missing", lambda tell: load_model(str(tmp_path / "missing")))
    studio = made_in(tmp_path, sampler, "missing")
    with pytest.raises(UserError, match="no such folder"):
        list(studio.make("me", drawing(), FORM))
    assert "no such folder" in sampler.status().text and sampler.status().bad


def test_a_model_is_loaded_once_in_the_background_with_its_parts_told(model):
    calls, go = [], threading.Event()

    def load(tell):
        calls.append(1)
        tell("weights", 0.4)
        go.wait()
        return load_model(str(model))

    sampler = LocalSampler("pocket", load)
    assert sampler.status().share == 0 and not calls
    for _ in range(3):
        sampler.begin()
    until = threading.Event()
    while sampler.status().share != 0.4:
        until.wait(0.01)
    assert "Loading pocket: weights, 0 s. You can draw." in sampler.status().text
    go.set()
    while sampler.status().share is not None:
        until.wait(0.01)
    assert "3 frames of 24x16" in sampler.status().text and len(calls) == 1


def test_the_page_is_built_without_the_libraries_that_compute(tmp_path):
    """They are torch and what imports it; with them the page would open seconds later."""
    program = """if True:
        import sys
        from models.serving.studio.quick_import import import_gradio
        from models.serving.cli import main
        import_gradio()
        from pathlib import Path
        from models.serving.studio import app, history, sampler
        from models.serving.studio import clips, motion
        shelf = clips.ClipShelf(Path(sys.argv[1]))
        sources = lambda: motion.StrokeSources(shelf, Path(sys.argv[1]))
        app.make_page(sampler.RemoteSampler(""), history.History(Path(sys.argv[1]), 1), lambda: None, sources)
        import gradio.component_meta
        print([name for name in ("torch", "scipy", "cv2", "av", "mlflow", "diffusers") if name in sys.modules])
        print(gradio.component_meta.create_or_modify_pyi(None, "", []))
    """
    pytest.importorskip("gradio", reason="gradio is not installed; pip install 'image-conductor[studio]'")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "None"], done.stderr


def test_the_oldest_videos_are_removed_when_the_history_is_full(studio, sampler, tmp_path):
    for _ in range(3):
        list(studio.make("me", drawing(), FORM))
    newest = studio.history.entries()[0].name
    small = made_in(tmp_path, sampler, limit=1)
    entry = list(small.make("me", drawing(), FORM))[-1].entry
    assert [each.name for each in small.history.entries()] == [entry.name] and entry.name > newest


def test_the_estimate_moves_the_picture_along_the_stroke():
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[25:35, 20:30] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    value = json.loads(drawing(trajectories=[[[25, 30], [55, 30]]], times=[[0, 1]]))
    value["image"] = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    frames = warped_frames(read_drawing(json.dumps(value)))
    there = frames[:, 27:34, 52:58].mean((1, 2, 3))
    assert there[0] == 0 and there[-1] > 200
    assert np.array_equal(frames[-1][:, :5], frames[0][:, :5])


def test_strokes_of_other_tools_come_into_the_editor(tmp_path):
    tracks = np.linspace([5, 5], [40, 25], 81)[:, None].repeat(100, 1) + np.linspace(0, 3, 100)[None, :, None]
    np.save(tmp_path / "a_tracks.npy", tracks[None].astype(np.float32))
    visibility = np.ones((1, 81, 100), bool)
    visibility[:, 60:, 99] = False
    np.save(tmp_path / "a_visibility.npy", visibility)
    drawn, said = strokes_of_files([tmp_path / "a_tracks.npy", tmp_path / "a_visibility.npy"], (48, 32))
    assert len(drawn.strokes) == 64 and all(len(stroke.points) == 2 for stroke in drawn.strokes)
    assert "64 of 100 tracks that move most" in said
    assert len(json.loads(with_strokes(drawing(), drawn))["strokes"]) == 64


def test_the_motion_of_a_video_becomes_strokes_of_the_points_clicked_or_of_a_grid(tmp_path):
    video = moving_texture(12, 192, 128, step=3, seed=1)
    (tmp_path / "a.mp4").write_bytes(encode_mp4(video, 8))
    clicked, _ = strokes_of_video(tmp_path / "a.mp4", [(150.0, 64.0)], (96, 64))
    (stroke,) = clicked.strokes
    assert stroke.points[0] == pytest.approx([74.75, 31.75], abs=0.01)
    assert stroke.points[-1] - stroke.points[0] == pytest.approx([-16.5, 0], abs=1)
    drawn, said = strokes_of_video(tmp_path / "a.mp4", 4, (96, 64))
    assert len(drawn.strokes) == 16 and said.startswith("16 strokes were added.")
    (tmp_path / "still.mp4").write_bytes(encode_mp4(video[:1].repeat(4, 0), 8))
    (pin,) = strokes_of_video(tmp_path / "still.mp4", [(20.0, 20.0)], (96, 64))[0].strokes
    assert len(pin.points) == 1
    for points, message in (([], "points: click at least one"), ([(900.0, 5.0)], "inside the video"), (4, "no track")):
        with pytest.raises(UserError, match=message):
            strokes_of_video(tmp_path / "still.mp4", points, (96, 64))


def test_the_clips_offered_by_default_are_the_pipelines():
    parser = argparse.ArgumentParser()
    add_studio_options(parser, "model")
    assert parser.get_default("clips") == clip_videos("mixed").folder


def test_curated_clips_are_found_as_files_and_in_shards(tmp_path):
    (tmp_path / "clips").mkdir()
    assert ClipShelf(tmp_path / "missing").names() == []
    (tmp_path / "clips" / "b.mp4").write_bytes(b"b")
    (tmp_path / "clips" / "damaged.zip").write_bytes(b"PK")
    with zipfile.ZipFile(tmp_path / "clips" / "shard-007.zip", "w") as shard:
        for name in ("a.mp4", "../c.mp4", "d.json"):
            shard.writestr(name, name)
    shelf = ClipShelf(tmp_path / "clips")
    assert shelf.names() == ["a.mp4", "b.mp4"]
    assert shelf.file("a.mp4", tmp_path).read_bytes() == b"a.mp4" and shelf.file("b.mp4", tmp_path).read_bytes() == b"b"
    with pytest.raises(UserError, match=r"clip: \.\./c\.mp4 is gone"):
        shelf.file("../c.mp4", tmp_path)


def test_what_a_foreign_server_says_is_shown_as_it_is():
    assert as_plain("Note: a ![](http://x) <b>bold</b> b_c.") == r"Note: a \!\[\]\(http://x\) \<b\>bold\</b\> b\_c."
