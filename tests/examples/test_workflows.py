"""Commands in the examples of workflows and containers: shells run them, and gsd takes them."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from gsd.main import main

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / "examples" / "workflows"
DOCKERFILE = ROOT / "examples" / "container" / "Dockerfile"

STUB = f"""#!{sys.executable}
import json, pathlib, sys
with pathlib.Path({{log!r}}).open("a") as log:
    log.write(json.dumps([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]) + "\\n")
"""


def parse(words: list[str]) -> dict[str, object]:
    """What gsd understands; a mistake in the words is an error."""
    command: click.Command = main
    while isinstance(command, click.Group):
        name, *words = words
        inner = command.get_command(click.Context(command), name)
        assert inner is not None, name
        command = inner
    return command.make_context(command.name, words).params


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Run lines of a shell with programs that only note how they were called."""
    log = tmp_path / "log"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("gsd", "dask", "srun", "sbatch", "docker"):
        (programs / name).write_text(STUB.format(log=str(log)))
        (programs / name).chmod(0o755)

    def run(shell: str, *words: str, **variables: str) -> list[list[str]]:
        log.write_text("")
        env = {**os.environ, **variables, "PATH": f"{programs}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-c", shell, "bash", *words], env=env, cwd=tmp_path, check=True)
        return [json.loads(line) for line in log.read_text().splitlines()]

    return run


def test_a_job_of_a_slurm_array_does_its_share(ran):
    script = WORKFLOWS / "slurm_shards.sh"
    ((_, *words),) = ran(
        f'. "{script}"',
        "my slides",
        "masks",
        **{"SLURM_CPUS_PER_TASK": "8", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"},
    )
    values = parse(words)
    assert values["slides"] == (Path("my slides"),)
    assert (values["output"], values["shard"]) == ("masks/", (3, 8))


def test_the_parts_of_an_array_are_joined(ran):
    head = (WORKFLOWS / "slurm_shards.sh").read_text().partition("#SBATCH")[0]
    submitting = "\n".join(re.findall(r"^#   (.+)$", head, re.M))
    (last,) = [call for call in ran(submitting) if "--wrap" in call]
    program, *words = last[-1].split()
    assert program == "gsd"
    assert parse(words)["masks"] == (Path("masks"),)


def test_a_slurm_job_starts_scheduler_and_workers_and_gives_them_work(ran):
    script = WORKFLOWS / "slurm_dask.sh"
    shell = f'hostname() {{ echo node1; }}; kill() {{ wait; }}; . "{script}"'
    calls = ran(shell, "slides", "masks", SLURM_CPUS_PER_TASK="8", SLURM_JOB_ID="40007")
    by_program = {(call[0], call[1]): call[1:] for call in calls}
    address = "tcp://node1:20007"
    values = parse(by_program["gsd", "segment"])
    assert (values["dask"], values["output"]) == (address, "masks/")
    assert "20007" in by_program["dask", "scheduler"]
    (worker,) = [call for call in calls if call[0] == "srun"]
    assert worker[worker.index("dask") :][:3] == ["dask", "worker", address]


def test_the_commands_of_snakemake_and_nextflow(ran):
    (of_snakemake,) = re.findall(r'shell: "(.+)"', (WORKFLOWS / "Snakefile").read_text())
    shell = of_snakemake.format(threads=8, input=_Quoted("'a b.svs'"), output=_Quoted("m/a.tif"))
    (called,) = ran(shell)
    values = parse(called[1:])
    assert (values["slides"], values["output"]) == ((Path("a b.svs"),), "m/a.tif")
    (of_nextflow,) = re.findall(r'"""\s+(.+)\s+"""', (WORKFLOWS / "main.nf").read_text())
    (called,) = ran(of_nextflow.replace("${task.cpus}", "8").replace("${slide}", "a.svs"))
    values = parse(called[1:])
    assert (values["slides"], values["output"]) == ((Path("a.svs"),), "mask.tif")


class _Quoted(str):
    """What Snakemake puts in the place of {input:q}."""

    def __format__(self, how: str) -> str:
        assert how == "q"
        return str(self)


@pytest.mark.skipif(shutil.which("snakemake") is None, reason="snakemake is not installed")
def test_snakemake_plans_a_job_for_each_slide(tmp_path):
    (tmp_path / "slides").mkdir()
    for name in ("a.svs", "b c's.svs"):
        (tmp_path / "slides" / name).touch()
    words = ["snakemake", "-n", "-p", "-s", str(WORKFLOWS / "Snakefile"), "--cores", "2"]
    done = subprocess.run(
        [*words, "--config", "slides=slides", "masks=masks"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        check=True,
    )
    assert (done.stdout + done.stderr).count("gsd segment") == 2


def test_what_the_container_is_made_of_is_there():
    text = DOCKERFILE.read_text()
    copied = [words.split() for words in re.findall(r"^COPY (?!--from)(.+)$", text, re.M)]
    sources = {source for *sources, _ in copied for source in sources}
    assert sources >= {"pyproject.toml", "CMakeLists.txt", "csrc", "cli", "genselfdiff"}
    assert all((ROOT / source).exists() for source in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["readme"] in sources
    assert set(project["license-files"]) <= sources
    (extras,) = re.findall(r"'\.\[(.+)\]'", text)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()


def test_the_container_runs_as_nobody_in_particular():
    last = DOCKERFILE.read_text().rpartition("\nFROM ")[2]
    user, _ = re.findall(r"^USER (\d+):(\d+)$", last, re.M)[0]
    assert int(user) > 0
    assert "ENTRYPOINT" not in last


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    subprocess.run(["hadolint", str(DOCKERFILE)], check=True)


def commands_of(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)
    return [block.replace("$PWD", "/here") for block in blocks]


def test_commands_on_the_pages(ran):
    shells = [shell for page in ("workflows.md", "container.md") for shell in commands_of(page)]
    without = [re.sub(r"^(nextflow|snakemake) .+$", "", shell, flags=re.M) for shell in shells]
    called = [call for shell in without for call in ran(shell)]
    of_gsd = [call[call.index("gsd") + 1 :] for call in called if "gsd" in call]
    of_gsd += [call[-1].split()[1:] for call in called if "--wrap" in call]
    assert {words[0] for words in of_gsd} == {"segment", "doctor", "train", "merge"}
    for words in of_gsd:
        parse(words)
