"""The files for GitHub are well-formed, and agree with the Makefile and pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = parsed(GITHUB / "workflows" / "ci.yml")["jobs"]
    return found


def scripts(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_yaml_file_is_an_object() -> None:
    files = sorted(GITHUB.rglob("*.yml"))
    assert len(files) >= 4
    assert all(isinstance(parsed(path), dict) for path in files)
    assert not list(GITHUB.rglob("*.yaml"))


def test_the_matrix_has_every_system_processor_and_python() -> None:
    matrices = [job["strategy"]["matrix"] for job in jobs().values() if "strategy" in job]
    machines = {machine for matrix in matrices for machine in matrix["os"]}
    assert {re.split("[-]", machine)[0] for machine in machines} == {"ubuntu", "macos", "windows"}
    assert {"ubuntu-24.04-arm", "windows-11-arm", "macos-15-intel"} <= machines
    with (ROOT / "pyproject.toml").open("rb") as file:
        oldest = tomllib.load(file)["project"]["requires-python"].removeprefix(">=")
    for matrix in matrices:
        assert matrix["python"] == [oldest, "3.12", "3.13", "3.14"]


def test_jobs_call_make_targets_that_exist_and_all_but_windows_do() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = {
        name: set(re.findall(r"\bmake (?:--[a-z-]+ )*([a-z-]+)", "\n".join(scripts(job))))
        for name, job in jobs().items()
    }
    assert called.pop("windows") == set()
    assert called == {
        "check": {"check"}, "test": {"native", "test", "run"}, "sanitize": {"sanitize"},
        "reference": {"reference", "torch"}, "cluster": {"cluster"},
    }  # fmt: skip
    assert set().union(*called.values()) <= targets


def test_windows_compiles_with_clang() -> None:
    windows = jobs()["windows"]
    assert windows["env"]["CMAKE_GENERATOR_TOOLSET"] == "ClangCL"
    assert any("pytest" in script for script in scripts(windows))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_only_and_puts_no_input_into_a_script(path: Path) -> None:
    workflow = parsed(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML 1.1 reads the key `on` as true
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert "permissions" not in job
        assert not [script for script in scripts(job) if "${{" in script]
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v0"))
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_what_github_asks_for(path: Path) -> None:
    form = parsed(path)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert fields
    assert len({field["id"] for field in fields}) == len(fields)
    for field in fields:
        assert field["type"] in {"textarea", "input", "dropdown", "checkboxes"}
        assert field["attributes"]["label"]
        assert (field["type"] == "dropdown") == ("options" in field["attributes"])
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_contributing_says_that_the_matrix_has_not_run() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert ".github/workflows/ci.yml" in text
    assert "It has not run yet" in text


def test_security_says_what_is_in_scope_how_to_report_and_which_versions() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["Supported versions", "How to report", "In scope", "Out of scope"]
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert f"| {version.rpartition('.')[0]} " in text
    assert "Report a vulnerability" in text
    scope = text.partition("## In scope")[2].partition("## Out of scope")[0]
    assert all(word in scope for word in ("recordings", "checkpoints", "journals"))
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all((ROOT / link).is_file() for link in links)


def test_the_source_package_takes_these_files() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        taken = tomllib.load(file)["tool"]["scikit-build"]["sdist"]["include"]
    assert {"/examples", "/.github", "/SECURITY.md"} <= set(taken)
    assert all((ROOT / name[1:]).exists() for name in taken)
