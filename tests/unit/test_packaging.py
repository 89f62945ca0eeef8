"""The tested versions in constraints.txt lie within the ranges of pyproject.toml, and `make` installs by them."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]
VERSIONS = {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in CONSTRAINTS}


def test_every_constraint_is_one_version_without_a_build_tag():
    assert all(str(each.specifier).startswith("==") and "+" not in str(each.specifier) for each in CONSTRAINTS)
    assert len(VERSIONS) == len(CONSTRAINTS)
    assert canonicalize_name(PROJECT["name"]) not in VERSIONS


@pytest.mark.parametrize("line", PROJECT["dependencies"])
def test_the_tested_version_of_a_dependency_is_one_that_the_project_allows(line):
    wanted = Requirement(line)

    assert wanted.specifier.contains(VERSIONS[canonicalize_name(wanted.name)])


def test_make_installs_by_the_constraints():
    text = (ROOT / "Makefile").read_text()

    assert "CONSTRAINTS ?= constraints.txt" in text
    assert all("$(PIP_INSTALL)" in line for line in text.splitlines() if " --editable" in line)
