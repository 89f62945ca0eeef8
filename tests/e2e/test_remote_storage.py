"""The project's own dvc.yaml with videos in S3, and a remote there for what comes of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.footage import ROOT, moving_texture, write_video

pytestmark = pytest.mark.e2e


@pytest.fixture
def project(tmp_path):
    """A repository of the project's code whose mixed videos lie in a bucket."""
    for name in ("models", "stages", "inputs", "dvc.yaml", ".dvcignore"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["collect"] |= {"source": "folder"}
    params["collect"]["folder"]["mixed"] = "s3://videos/in"
    params["compute"]["backend"] = "serial"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "dvc", "init", "--quiet")
    return tmp_path


def run(folder, *command):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def upload(bucket, folder, seed):
    video = write_video(folder / f"{seed}.mp4", moving_texture(24, 160, 120, seed=seed))
    bucket.put(str(video), f"videos/in/{seed}.mp4")


def test_repro_follows_a_bucket_and_pull_brings_the_results_back(project, bucket, downloads, tmp_path_factory):
    outside = tmp_path_factory.mktemp("videos")
    upload(bucket, outside, 1)
    run(project, "dvc", "repro", "clips@mixed")
    assert downloads() == ["in/1.mp4"]
    assert "didn't change" in run(project, "dvc", "repro", "clips@mixed") and downloads() == []
    upload(bucket, outside, 2)
    run(project, "dvc", "repro", "clips@mixed")
    assert downloads() == ["in/2.mp4"]

    bucket.mkdir("results")
    run(project, "dvc", "remote", "add", "--default", "store", "s3://results/dvc")
    run(project, "dvc", "push", "clips@mixed")
    clips = project / "data/clips/mixed"
    made = {path.relative_to(clips): path.read_bytes() for path in clips.rglob("*") if path.is_file()}
    shutil.rmtree(project / "data")
    shutil.rmtree(project / ".dvc/cache")
    run(project, "dvc", "pull", "clips@mixed")
    assert {path.relative_to(clips): path.read_bytes() for path in clips.rglob("*") if path.is_file()} == made
    assert len(list(clips.glob("videos/*.zip"))) == 2
