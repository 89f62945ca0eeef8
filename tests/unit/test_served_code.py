"""`make serve` says when a model was registered with other code than the code that runs it."""

from stages.serve import differs


def test_other_code_is_noticed_and_equal_or_absent_code_is_not(tmp_path):
    logged, running = tmp_path / "logged", tmp_path / "running"
    for folder in (logged, running):
        (folder / "sampling").mkdir(parents=True)
        (folder / "sampling/guidance.py").write_text("scale = 1\n")
    assert not differs(logged, running)
    assert not differs(tmp_path / "nothing", running)
    (running / "sampling/guidance.py").write_text("scale = 2\n")
    assert differs(logged, running)
    (running / "sampling/guidance.py").write_text("scale = 1\n")
    (running / "new.py").touch()
    assert differs(logged, running)
