"""The table of the curation report in Chromium, opened from disk."""

import pytest

from models.video.write import encode_mp4
from tests.footage import moving_texture
from tests.unit.test_curation_report import row, table, write_page

IDS = ("0123456789abcdef" * 2, "fedcba9876543210" * 2, "aaaabbbbccccdddd" * 2)


@pytest.mark.e2e
def test_clips_are_sorted_filtered_and_played_without_a_server(tmp_path, browser):
    (tmp_path / "clip.mp4").write_bytes(encode_mp4(moving_texture(4, 96, 64, step=1, seed=0), 8))
    files = {"strip": "missing.jpg", "clip": "clip.mp4"}
    scores = (2.0, 10.0, 1.0)
    clips = [
        row(f"{i}-with-a-long-name.mp4", clip_id=name, motion_score=score, **files)
        for i, (name, score) in enumerate(zip(IDS, scores, strict=True))
    ]
    write_page(tmp_path / "index.html", table([*clips, row("dropped.mp4", "motion", motion_score=None)]))
    browser.get((tmp_path / "index.html").as_uri())

    def column(name: str) -> list[str]:
        return [cell.text for cell in browser.find_elements("css selector", f"#body td[data-column={name}]")]

    def sort() -> None:
        browser.find_element("xpath", "//tr[@id='names']//button[starts-with(., 'motion_score')]").click()

    id_line = browser.find_element("xpath", f"//tbody//div[.='{IDS[0]}']")
    lines = """
        const range = document.createRange();
        range.selectNodeContents(arguments[0]);
        return range.getClientRects().length;
    """
    assert browser.execute_script(lines, id_line) == 1
    sort()
    assert column("motion_score") == ["1", "2", "10", ""]
    sort()
    assert column("motion_score") == ["10", "2", "1", ""]
    browser.find_element("css selector", "[aria-label='filter motion_score']").send_keys(">=2")
    assert column("motion_score") == ["10", "2"] and browser.find_element("id", "count").text == "2 of 4 rows"
    browser.find_element("css selector", "#body button").click()
    video = browser.find_element("css selector", "#body video")
    browser.set_script_timeout(10)
    assert browser.execute_async_script(
        """
        const [video, done] = arguments, look = () => video.currentTime > 0 && done(true);
        video.addEventListener("timeupdate", look);
        look();
        """,
        video,
    )
