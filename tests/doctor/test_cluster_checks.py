"""Workers that get no work, and workers that differ."""

from dataclasses import replace

import pytest
from distributed import Client

from genselfdiff.doctor import cluster_checks
from genselfdiff.doctor.cluster_checks import cluster_findings, workers
from genselfdiff.fleet.machines import Machine
from genselfdiff.models.model_file import load_model


@pytest.fixture
def client():
    with Client(
        n_workers=2, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        yield client
        client.cluster.close()


@pytest.fixture
def model(darkness_model):
    return load_model(darkness_model, "cpu")


def test_workers_that_fit_and_what_they_hold_then(client, model, tmp_path, found):
    findings = found(workers(client, model, tmp_path))
    assert list(findings) == ["cluster"]
    assert "2 workers" in findings["cluster"].text
    held = client.run(lambda dask_worker: hasattr(dask_worker, "genselfdiff_kept"))
    assert list(held.values()) == [False, False]


def test_workers_without_the_folder(client, model, tmp_path, found):
    finding = found(workers(client, model, tmp_path / "not there"))["worker"]
    assert finding.grade == "wrong"
    assert "does not see the folder" in finding.text


def test_workers_that_differ(client, model, tmp_path, monkeypatch):
    real = cluster_checks._greeted(client, model, tmp_path)
    (machine, _) = real.values()
    assert isinstance(machine, Machine)
    told = {f"tcp://{number}": machine for number in range(9)}
    told |= {
        "tcp://old": replace(machine, genselfdiff="0.0.1"),
        "tcp://torch1": replace(machine, torch="2.10.0"),
        "tcp://torch2": replace(machine, torch="2.10.0"),
        "tcp://gpu": replace(machine, device="cuda"),
        "tcp://broken": ModuleNotFoundError("No module named 'genselfdiff'"),
        "tcp://busy": TimeoutError(),
    }
    monkeypatch.setattr(cluster_checks, "_greeted", lambda *_: told)
    findings = {finding.text: finding.grade for finding in workers(client, model, tmp_path)}
    wrong = " ".join(text for text, grade in findings.items() if grade == "wrong")
    for said in (
        "tcp://old: gets no work: it has genselfdiff 0.0.1",
        "tcp://gpu: gets no work",
        "tcp://broken: does not work: No module",
        "tcp://busy: does not work: no answer",
    ):
        assert said in wrong
    (differs,) = [text for text, grade in findings.items() if grade == "warning"]
    assert differs.startswith("tcp://torch1, tcp://torch2: torch 2.10.0, elsewhere")


def test_other_versions_of_python(client, model, tmp_path, monkeypatch, found):
    versions = client.get_versions(check=False)
    for name in versions["workers"]:
        packages = dict(versions["workers"][name]["packages"], python="3.9.1")
        versions["workers"][name] = {"packages": packages}
    monkeypatch.setattr(client, "get_versions", lambda check: versions)
    finding = found(workers(client, model, tmp_path))["versions"]
    assert finding.grade == "warning"
    assert "python 3.9.1" in finding.text


def test_a_scheduler_without_workers_and_none(model, tmp_path, monkeypatch, found):
    monkeypatch.setattr(cluster_checks, "WAIT_SECONDS", 0.5)
    with Client(n_workers=0, processes=False, dashboard_address=":0") as empty:
        finding = found(workers(empty, model, tmp_path))["cluster"]
        assert finding.grade == "wrong"
        assert "dask worker" in finding.advice
        empty.cluster.close()
    nowhere = found(cluster_findings(str(tmp_path / "none.toml"), model, tmp_path))
    assert nowhere["cluster"].grade == "wrong"
