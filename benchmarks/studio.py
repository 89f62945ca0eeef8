"""What it costs to open the studio's page without a model: `python -m benchmarks.studio`.

Starts the page as a user does, opens it in headless Chromium, and waits until the stroke editor takes a picture. Needs
chromium and chromedriver. The server's own seconds do not count the browser's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import NamedTuple

import psutil
from selenium import webdriver
from selenium.webdriver.chrome.options import Options

PORT = 7871
READY = (
    "return Boolean(document.querySelector('.ic-move')?.options.length > 5 && document.querySelector('#studio-make'))"
)


class Opening(NamedTuple):
    """Seconds: from the command to a page that answers, on to an editor that works, and the server's CPU in both."""

    listening: float
    interactive: float
    server_cpu: float


def open_page(driver: webdriver.Chrome) -> Opening:
    """Start the command, open the page, stop the command."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--endpoint=http://127.0.0.1:1", f"--history={folder}", f"--port={PORT}"]
        program = [sys.executable, "-m", "models.serving.cli", "studio", *options]
        started = time.perf_counter()
        with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            address = f"http://127.0.0.1:{PORT}/"
            while not _answers(address):
                time.sleep(0.02)
            listening = time.perf_counter() - started
            driver.get(address)
            while not driver.execute_script(READY):
                time.sleep(0.02)
            interactive = time.perf_counter() - started
            spent = psutil.Process(server.pid).cpu_times()
            driver.get("about:blank")
            server.kill()
        return Opening(listening, interactive, spent.user + spent.system)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studio", description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="default: %(default)s")
    options = Options()
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(option)
    times = parser.parse_args().times
    with webdriver.Chrome(options=options) as driver:
        openings = [open_page(driver) for _ in range(times)]
    medians = {name: statistics.median(getattr(each, name) for each in openings) for name in Opening._fields}
    print(json.dumps({"median_seconds": medians, "times": times}, indent=2))


if __name__ == "__main__":
    main()
