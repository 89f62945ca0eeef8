"""The studio in Chromium, by real pointer events: draw, play, make, cancel, make again, read the error, reload."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import pytest
from PIL import Image

from models.video.write import encode_mp4
from tests.footage import moving_texture
from tests.unit.tiny import pipeline

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
SLOW = 240  # seconds that a busy machine may take for one step
PORT = 7869
HOSTILE = '<img src=x onerror="document.title=`owned`">'
HOSTILE_NAME = "<img src=x onerror=document.title=`owned`>.json"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    pytest.importorskip("gradio", reason="gradio is not installed; pip install 'image-conductor[studio]'")
    if shutil.which("chromedriver") is None:
        pytest.skip("no Chromium with chromedriver here; Debian: apt install chromium chromium-driver")
    pipeline().save_pretrained(folder / "model")
    options = [f"--model={folder / 'model'}", f"--history={folder / 'history'}", f"--port={PORT}"]
    program = [sys.executable, "-m", "models.serving.cli", "studio", *options]
    with subprocess.Popen(program, env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}) as server:
        url = f"http://127.0.0.1:{PORT}/"
        until(lambda: urllib.request.urlopen(url, timeout=5).status == 200, OSError)
        yield url
        server.terminate()


def until(condition, *passing):
    """Wait until a condition holds; exceptions of these types count as not yet."""
    end = time.monotonic() + SLOW
    while time.monotonic() < end:
        with suppress(*passing):
            if condition():
                return
        time.sleep(0.2)
    pytest.fail("the page did not get there in time")


class Page:
    """The page as a user sees it."""

    def __init__(self, driver, url: str):
        self.driver, self.url = driver, url
        driver.get(url)
        self.until("document.querySelector('.ic-move')?.options.length > 5 && document.querySelector('#studio-make')")

    def js(self, program: str, *arguments):
        return self.driver.execute_script(program, *arguments)

    def until(self, condition: str) -> None:
        from selenium.common.exceptions import WebDriverException

        until(lambda: self.js(f"return Boolean({condition})"), WebDriverException)

    def click(self, selector: str) -> None:
        self.js("document.querySelector(arguments[0]).click()", selector)

    def write(self, selector: str, text: str) -> None:
        """Put text into a field as typing does."""
        from selenium.webdriver.common.keys import Keys

        self.until(f"document.querySelector('{selector}')")
        field = self.driver.find_element("css selector", selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", field)
        field.clear()
        field.send_keys(text, Keys.TAB)

    def open(self, label: str) -> None:
        """Open an accordion that is closed."""
        self.js(
            "const all = [...document.querySelectorAll('button.label-wrap')];"
            "const b = all.find(b => b.innerText.includes(arguments[0]));"
            "if (!b.classList.contains('open')) b.click()",
            label,
        )

    def text(self, selector: str) -> str:
        return self.js("return document.querySelector(arguments[0]).innerText", selector)

    def strokes(self) -> int:
        return self.js("return document.querySelectorAll('.ic-list li').length")

    def draw(self, *points: tuple[float, float], kind: str = "mouse") -> None:
        """A pointer goes through points, given as shares of the picture."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        svg = self.driver.find_element("css selector", ".ic-svg")
        self.js("arguments[0].scrollIntoView({block: 'center'})", svg)
        size = svg.size
        chain = ActionChains(self.driver, duration=40, devices=[PointerInput(kind, kind)])
        pointer = chain.w3c_actions.pointer_action
        for number, (x, y) in enumerate(points):
            pointer.move_to(svg, int((x - 0.5) * size["width"]), int((y - 0.5) * size["height"]))
            if number == 0:
                pointer.pointer_down()
        pointer.pointer_up()
        chain.perform()


def follow_clicked_points(page: Page, folder) -> None:
    """A point that is clicked on a video's first frame becomes a stroke of the editor."""
    from selenium.webdriver.common.action_chains import ActionChains

    (folder / "clip.mp4").write_bytes(encode_mp4(moving_texture(8, 96, 64, step=2, seed=1), 8))
    page.open("Motion from a video")
    page.until("document.querySelector('#studio-clip input[type=file]')")
    page.driver.find_element("css selector", "#studio-clip input[type=file]").send_keys(str(folder / "clip.mp4"))
    page.until("document.querySelector('#studio-frame img')")
    frame = page.driver.find_element("css selector", "#studio-frame img")
    page.js("arguments[0].scrollIntoView({block: 'center'})", frame)
    plain, before = frame.get_attribute("src"), page.strokes()
    ActionChains(page.driver).move_to_element(frame).click().perform()
    page.until(f"document.querySelector('#studio-frame img').src !== '{plain}'")
    page.click("button#studio-follow")
    page.until(f"document.querySelectorAll('.ic-list li').length === {before + 1}")


@pytest.mark.parametrize(("width", "kind"), [(1300, "mouse"), (390, "touch")])
def test_a_user_draws_and_makes_a_video(address, browser, tmp_path, width, kind):
    browser.set_window_size(width, 1000)
    Image.effect_noise((96, 64), 90).convert("RGB").save(tmp_path / "picture.png")
    page = Page(browser, address)
    browser.find_element("css selector", ".ic-file").send_keys(str(tmp_path / "picture.png"))
    page.until("document.querySelector('.ic').dataset.empty === 'false'")
    page.draw((0.2, 0.3), (0.3, 0.35), (0.4, 0.3), (0.5, 0.4), kind=kind)
    page.draw((0.7, 0.7), (0.7, 0.6), (0.75, 0.5), kind=kind)
    page.click("[data-tool=pin]")
    page.draw((0.1, 0.8), kind=kind)
    assert page.strokes() == 3
    page.js("const m = document.querySelector('.ic-move'); m.value = 'pan_right'; m.dispatchEvent(new Event('change'))")
    page.until("document.querySelectorAll('.ic-list li').length === 7")
    page.click("[data-do=undo]")
    assert page.strokes() == 3
    page.click("[data-do=redo]")
    assert page.strokes() == 7
    page.click(".ic-list button")
    page.js("const f = document.querySelector('[data-field=end]'); f.value = 50; f.dispatchEvent(new Event('input'))")
    assert "0–50 %" in page.text(".ic-list")
    page.click("[data-do=play]")
    page.until("document.querySelectorAll('.ic-marks circle').length === 7")
    page.click("[data-do=play]")

    page.write("#studio-prompt textarea", HOSTILE)
    page.open("Settings")
    page.write("#studio-steps input", "200")
    page.js("document.querySelector('#studio-make').scrollIntoView()")
    page.click("#studio-make")
    page.until("/Step [1-9]/.test(document.querySelector('#studio-progress').innerText)")
    page.click("#studio-cancel button, button#studio-cancel")
    page.until("/Cancelled/.test(document.querySelector('#studio-progress').innerText)")
    page.write("#studio-steps input", "2")
    before = page.js("return document.querySelectorAll('#studio-history .thumbnail-item').length")
    page.click("#studio-make")
    page.until("/Done/.test(document.querySelector('#studio-progress').innerText)")
    assert "object 1" in page.text("#studio-errors") and "px" in page.text("#studio-errors")
    assert page.js("return document.querySelector('#studio-video video').readyState") is not None

    made = page.js("return document.querySelector('#studio-mp4')?.closest('a, button')?.parentElement.innerHTML || ''")
    assert "mp4" in made

    page.open("Strokes from a file")
    (tmp_path / HOSTILE_NAME).write_text("[[[1, <b>")
    page.until("document.querySelector('#studio-strokes input[type=file]')")
    browser.find_element("css selector", "#studio-strokes input[type=file]").send_keys(str(tmp_path / HOSTILE_NAME))
    page.until("document.querySelector('#studio-progress .studio-bad')")
    assert "Traceback" not in page.text("body") and "not readable" in page.text("#studio-progress")

    follow_clicked_points(page, tmp_path)
    browser.get(address)
    page.until(f"document.querySelectorAll('#studio-history .thumbnail-item').length === {before + 1}")
    page.click("#studio-history .thumbnail-item")
    page.until("document.querySelectorAll('.ic-list li').length === 7")
    assert "object 1" in page.text("#studio-errors")
    page.open("Make it elsewhere")
    page.until("document.querySelector('#studio-command')?.innerText.includes('onerror')")
    assert page.js("return document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"
    assert page.js("return document.title") != "owned"
    assert not page.js("return document.querySelectorAll('[onerror]').length")
