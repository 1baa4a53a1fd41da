"""What the documents of delivery and the dev container say is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import lint_workflows
from devstack.layout import Layout
from mesh.compose.render import BASE_IMAGE
from mesh.topology import CONSOLE

ROOT = Path(__file__).resolve().parent.parent.parent


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_everything_that_production_refuses_is_in_the_checklist() -> None:
    checklist = text("docs/deploy.md").partition("## Before production")[2].partition("What nothing can refuse")[0]
    refused = set(re.findall(r"^\| `([A-Z_]+)` \|[^\n]*not in production", text("docs/configuration.md"), re.MULTILINE))
    assert len(refused) > 4
    # TOKEN_AUDIENCE may stay; each that is named is one that is refused.
    assert refused <= set(re.findall(r"`([A-Z_]+)`", checklist))


def test_every_command_and_file_that_the_pages_name_is_there() -> None:
    makefile = text("Makefile")
    targets = set(" ".join(re.findall(r"^([a-z][a-z -]*):(?!=)", makefile, re.MULTILINE)).split())
    for page in ("docs/pipeline.md", "docs/supply-chain.md", "docs/deploy.md", "SECURITY.md"):
        found = text(page)
        assert set(re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z-]+)", found)) <= targets, page
        for path in re.findall(r"`((?:tests|docs|libs|tools|services|deploy)/[\w./-]+?)(?:::\w+)?`", found):
            assert (ROOT / path).exists(), f"{page}: {path}"
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", found):
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


def test_the_page_of_the_pipeline_has_every_workflow_and_every_check() -> None:
    page = text("docs/pipeline.md")
    for workflow in lint_workflows.workflows():
        assert f".github/workflows/{workflow.name})" in page
    checks = page.partition("## The checks")[2].partition("\n## ")[0]
    (pull_request,) = (found for found in lint_workflows.workflows() if found.name == "pull-request.yml")
    for name, job in pull_request.jobs.items():
        said = re.sub(r" ?\$\{\{.*\}\}", "", job["name"])
        assert name == "passed" or re.search(rf"^\| {re.escape(said)}\b", checks, re.MULTILINE), said


def test_every_variable_and_secret_that_a_workflow_asks_for_is_on_the_page() -> None:
    page = text("docs/pipeline.md").partition("## What a repository has to be given")[2].partition("\n## ")[0]
    asked = {
        name for found in lint_workflows.workflows() for name in re.findall(r"(?:vars|secrets)\.([A-Z_]+)", found.text)
    }
    assert len(asked) > 6
    assert asked <= set(re.findall(r"`([A-Z_]+)`", page))


def test_the_dev_container_has_the_python_of_images_and_the_ports_of_a_stack(tmp_path: Path) -> None:
    (base,) = re.findall(r"^ARG BASE=(.*)$", text(".devcontainer/Dockerfile"), re.MULTILINE)
    assert base == BASE_IMAGE
    lines = text(".devcontainer/devcontainer.json").splitlines()
    settings = json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))
    assert settings["onCreateCommand"].removeprefix("make ") in text("Makefile")
    layout = Layout(tmp_path, 0)
    assert settings["forwardPorts"] == [layout.port(name) for name in (CONSOLE, "public", "public_tls")]
