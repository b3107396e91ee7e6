"""Each check of `raygenome doctor`, on a good machine and on one with problems."""

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs
from support.builders import random_genome, write_fasta, write_model
from support.object_store import make_bucket, s3_server, use
from support.ray_head import ray_head
from typer.testing import CliRunner

import raygenome.cli
from raygenome.cli import doctor as cli_doctor
from raygenome.doctor import clusters, gpus, models, room, services, versions
from raygenome.doctor.finding import Finding
from raygenome.doctor.genome import check_fasta
from raygenome.doctor.services import Service
from raygenome.storage.files import file_sha256

TOKEN = "c0ffee" * 8


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the token, the address and the home of the user who runs the tests."""
    for name in list(os.environ):
        if name.startswith(("RAY_", "RAYGENOME_FASTA")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def check_clusters(address: str | None, *found: Service) -> list[Finding]:
    """Check clusters on a machine with these services of Ray, and no other."""
    return clusters.check_clusters(
        address, list_services=lambda: list(found), default="http://127.0.0.1:1"
    )


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.level for finding in findings}


def only(findings: list[Finding], check: str) -> Finding:
    (found,) = [finding for finding in findings if f"{finding.check} ".startswith(f"{check} ")]
    return found


# versions


def test_what_is_installed_here_is_new_enough() -> None:
    found = levels(versions.check_versions())
    assert found == dict.fromkeys(["raygenome", "Python", "torch", "ray", "htslib"], "ok")


@pytest.mark.parametrize(
    ("package", "version", "level", "message"),
    [
        ("torch", "2.9.1+cu128", "problem", "CVE-2026-24747"),
        ("torch", "2.10", "ok", ""),
        ("torch", "2.10.0rc1", "ok", ""),
        ("ray", "2.53.0", "problem", "CVE-2026-27482"),
        ("ray", "2.54.0", "ok", ""),
        ("htslib", "1.23", "problem", "CVE-2026-31970"),
        ("htslib", "unknown", "ok", ""),
        ("htslib", "1.23.1", "ok", ""),
        ("htslib", None, "problem", "not installed"),
    ],
)
def test_versions_below_their_floor(
    package: str, version: str | None, level: str, message: str
) -> None:
    def version_of(name: str) -> str | None:
        return version if name == package else versions.installed(name)

    found = only(versions.check_versions(version_of), package)
    assert found.level == level
    assert message in found.found
    assert ("pip install" in found.do) == (level == "problem")


# tokens and clusters


def test_no_token_is_only_a_note() -> None:
    assert levels(clusters.check_token()) == {"token": "note"}


@pytest.mark.parametrize(("mode", "level"), [(0o600, "ok"), (0o644, "problem"), (0o620, "problem")])
def test_others_must_not_read_the_token_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, level: str
) -> None:
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text(TOKEN)
    file.chmod(mode)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    findings = clusters.check_token()
    assert levels(findings) == {"token": "ok", "token file": level}
    assert ("chmod 600" in findings[1].do) == (level == "problem")
    assert TOKEN not in repr(findings)


@pytest.mark.parametrize(("mode", "message"), [("token", "no token"), ("disabled", "disabled")])
def test_a_mode_that_protects_nothing(
    monkeypatch: pytest.MonkeyPatch, mode: str, message: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    found = only(clusters.check_token(), "token")
    assert found.level == "problem"
    assert message in found.found


@pytest.fixture
def dashboard() -> Iterator[Callable[..., str]]:
    """Start a server that answers like Ray's dashboard, with a status; return its URL."""
    servers = []

    def start(status: int, host: str = "127.0.0.1", token: str | None = None) -> str:
        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path == "/api/jobs/"
                shown = self.headers["Authorization"]
                self.send_response(200 if token and shown == f"Bearer {token}" else status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b"[]")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = HTTPServer((host, 0), Answers)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_no_cluster() -> None:
    assert levels(check_clusters(None)) == {"clusters": "ok"}


@pytest.mark.parametrize(("status", "level"), [(200, "note"), (401, "problem"), (500, "note")])
def test_the_cluster_to_be_used(
    dashboard: Callable[[int], str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    level: str,
) -> None:
    """Open on loopback, or not a dashboard, is a note; 401 without a token is a problem."""
    url = dashboard(status)
    assert only(check_clusters(url), "dashboard").level == level
    monkeypatch.setenv("RAY_ADDRESS", url.removeprefix("http://"))
    assert only(check_clusters(None), "dashboard").level == level


def test_nothing_at_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = only(check_clusters(f"127.0.0.1:{port}"), "dashboard")
    assert found.level == "problem"
    assert "--address" in found.do


def test_a_protected_cluster_and_its_token(
    dashboard: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    findings = check_clusters(dashboard(401, token=TOKEN))
    assert only(findings, "dashboard").level == "ok"
    assert "accepts the one that is set here" in only(findings, "dashboard").found
    assert TOKEN not in repr(findings)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("token", [TOKEN, "not\nthe one"])
def test_a_protected_cluster_and_another_token(
    dashboard: Callable[..., str], monkeypatch: pytest.MonkeyPatch, status: int, token: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    findings = check_clusters(dashboard(status, token="theirs"))
    found = only(findings, "dashboard")
    assert (found.level, found.found) == ("problem", "refuses the token that is set here")
    assert "ray get-auth-token" in found.do
    assert token not in repr(findings)


def test_the_token_is_sent_only_to_the_cluster_to_be_used(
    dashboard: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    url = dashboard(401)
    port = int(url.rpartition(":")[2])
    service = Service("dashboard", "127.0.0.1", port, token_mode=None)
    monkeypatch.setattr(clusters.auth, "token", lambda: pytest.fail("it was read"))
    assert only(check_clusters(None, service), "dashboard").found == "requires a token"


def test_an_address_that_cannot_be_a_dashboard_is_a_problem() -> None:
    found = only(check_clusters("ray://head:10001"), "clusters")
    assert found.level == "problem"
    assert "is not the address of a Ray dashboard" in found.found
    assert "give its URL" in found.do


@pytest.mark.parametrize(
    ("status", "host", "level"),
    [
        (200, "127.0.0.1", "note"),
        (200, "0.0.0.0", "problem"),
        (401, "0.0.0.0", "ok"),
    ],
)
def test_dashboards_of_this_machine(
    dashboard: Callable[[int], str], status: int, host: str, level: str
) -> None:
    port = int(dashboard(status).rpartition(":")[2])
    service = Service("dashboard", host, port, token_mode=None)
    assert only(check_clusters(None, service), "dashboard").level == level


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not show open ports")
def test_a_dashboard_that_listens_on_all_addresses(dashboard: Callable[..., str]) -> None:
    found = only(check_clusters(dashboard(200, "0.0.0.0")), "dashboard")
    assert found.level == "problem"
    assert "listens on 0.0.0.0" in found.found
    assert only(check_clusters(dashboard(200)), "dashboard").level == "note"


@pytest.mark.parametrize(
    ("host", "mode", "level"),
    [
        ("::", True, "ok"),
        ("::", False, "problem"),
        ("::", None, "note"),
        ("192.0.2.7", False, "problem"),
        ("127.0.0.1", False, "note"),
    ],
)
def test_heads_of_this_machine(host: str, mode: bool | None, level: str) -> None:
    assert only(check_clusters(None, Service("head", host, 6379, mode)), "head").level == level


LISTEN = """
import socket, sys, time
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def listener(program: Path, *words: str, **environ: str) -> Iterator[int]:
    """Run a process that looks like one of Ray's and listens; yield its port."""
    program.symlink_to(os.path.realpath(sys.executable))
    with subprocess.Popen(
        [program, "-c", LISTEN, *words], stdout=subprocess.PIPE, env={"A": "1", **environ}
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not show open ports")
def test_services_are_found_by_command_line_and_port(tmp_path: Path) -> None:
    """A port on the command line counts, even if another process opened it; else its own ports."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        listener(tmp_path / "gcs_server", "--gcs_server_port=0") as head,
        listener(
            tmp_path / "python",
            "/opt/ray/dashboard/dashboard.py",
            f"--port={server.getsockname()[1]}",
            RAY_AUTH_MODE="token",
        ),
    ):
        found = services.ray_services()
        assert found is not None
        assert Service("head", "127.0.0.1", head, False) in found
        assert Service("dashboard", "127.0.0.1", server.getsockname()[1], True) in found
        assert [each.program for each in found if each.port == head] == ["head"]
        assert services.addresses_of(head) == ["127.0.0.1"]
    gone = services.ray_services()
    assert gone is not None
    assert not [each for each in gone if each.port == head]


@pytest.mark.ray
@pytest.mark.slow
def test_a_real_head_is_found_and_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with ray_head() as head:
        found = levels(clusters.check_clusters(head.url))
        assert found[f"dashboard {head.url}"] == "problem"  # no token here
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
        found = levels(clusters.check_clusters(head.url))
        assert found[f"dashboard {head.url}"] == "ok"
        port = int(head.gcs.rpartition(":")[2])
        (gcs,) = [one for one in services.ray_services() or [] if one.port == port]
        assert (gcs.program, gcs.token_mode) == ("head", True)
        host = f"[{gcs.host}]" if ":" in gcs.host else gcs.host
        assert found[f"head {host}:{port}"] == "ok"


# GPUs


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts a shell script as nvidia-smi on the PATH."""

    def write(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return write


H200 = "echo 'NVIDIA H200, 580.95.05, 9.0, 143771 MiB'"
CUDA_13 = gpus.Torch("13.0", True, ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120"))


@pytest.mark.parametrize(
    ("script", "torch", "level", "message"),
    [
        (H200, CUDA_13, "ok", "CUDA 13.0 on driver 580.95.05"),
        (H200, gpus.Torch(None, False, ()), "problem", "without CUDA"),
        (H200, gpus.Torch("13.0", False, ()), "problem", "finds no usable GPU"),
        (H200.replace("580.95.05", "550.54"), CUDA_13, "problem", "too old"),
        (H200.replace("9.0", "7.0"), CUDA_13, "problem", "no kernels"),
        (H200.replace("9.0", "8.9"), CUDA_13, "ok", "CUDA"),
        (H200.replace("9.0", "10.3"), CUDA_13, "ok", "CUDA"),
        (H200.replace("9.0", "13.0"), CUDA_13, "problem", "no kernels"),
        (H200.replace("9.0", "13.0"), gpus.Torch("13.0", True, ("compute_120",)), "ok", "CUDA"),
        (H200.replace("9.0", "[N/A]"), CUDA_13, "ok", "CUDA"),
    ],
)
def test_gpu_driver_and_torch(
    smi: Callable[[str], None], script: str, torch: gpus.Torch, level: str, message: str
) -> None:
    smi(script)
    findings = gpus.check_gpus(torch)
    assert only(findings, "GPU").found.startswith("NVIDIA H200")
    found = only(findings, "torch and GPU")
    assert found.level == level
    assert message in found.found
    assert bool(found.do) == (level == "problem")


@pytest.mark.parametrize(
    ("script", "level", "message"),
    [
        ("echo 'No devices were found' >&2; exit 6", "ok", "none"),
        ("echo 'could not talk to the driver'; exit 9", "problem", "could not talk"),
        ("exec sleep 60", "problem", "did not answer"),
    ],
)
def test_an_nvidia_smi_without_a_result(
    smi: Callable[[str], None], script: str, level: str, message: str
) -> None:
    smi(script)
    (found,) = gpus.check_gpus(timeout_s=0.3)
    assert found.level == level
    assert message in found.found


def test_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = gpus.check_gpus()
    assert found.level == "ok"


# room


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "level"), [(1e8, "problem"), (1e9, "note"), (1e12, "ok")])
def test_disk_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, level: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2e12, 0, free))
    found = only(room.check_room(str(tmp_path / "not" / "yet")), "--out")
    assert found.level == level
    assert not (tmp_path / "not").exists()
    assert not list(tmp_path.glob(".raygenome*"))


def test_a_run_cannot_be_inside_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert only(room.check_room(str(tmp_path / "file" / "run")), "--out").level == "problem"


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    found = only(room.check_room(str(tmp_path)), "--out")
    assert found.level == "problem"
    assert "Read-only file system" in found.found


@pytest.mark.slow
def test_a_store_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as url:
        use(monkeypatch, url)
        filesystem = make_bucket("mine")
        filesystem.create_dir("mine/a")
        everything = fs.FileSelector("mine", recursive=True)
        for place in ("s3://mine", "s3://mine/a", "s3://mine/a/b/c", "s3://mine/p"):
            assert only(room.check_room(place), "--out").level == "ok"
            assert [info.path for info in filesystem.get_file_info(everything)] == ["mine/a"]
        found = only(room.check_room("s3://other/p"), "--out")
        assert found.level == "problem"
        assert found.found == "s3://other/p cannot be written to: there is no such bucket"
        assert "check that the bucket exists" in found.do


def test_a_store_that_cannot_be_reached() -> None:
    found = only(room.check_room("s3://"), "--out")
    assert found.level == "problem"
    assert "write s3://BUCKET/NAME or gs://BUCKET/NAME" in f"{found.found}; {found.do}"


def test_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    found = only(room.check_room(None), "open files")
    assert found.level == "note"
    assert "ulimit -n" in found.do


def test_limits_of_a_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job/step\n")
    step = tmp_path / "sys/fs/cgroup/job/step"
    step.mkdir(parents=True)
    assert room.cgroup_cpus(tmp_path) == room.cgroup_memory(tmp_path) == float("inf")
    (step / "cpu.max").write_text("max 100000\n")
    (step / "memory.max").write_text("max\n")
    (step.parent / "cpu.max").write_text("150000 100000\n")
    (step.parent / "memory.max").write_text("2000000000\n")
    assert room.cgroup_cpus(tmp_path) == 1.5
    assert room.cgroup_memory(tmp_path) == 2e9

    monkeypatch.setattr(room, "cores", lambda: 8)
    findings = room.check_room(None, tmp_path)
    assert only(findings, "cores").level == "note"
    assert "--workers 1" in only(findings, "cores").do
    assert only(findings, "memory").level == "note"


# genome


def test_a_sound_fasta(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "g.fa", random_genome(chr1=500, chr2=300))
    (found,) = check_fasta(str(fasta))
    assert found.level == "ok"
    assert found.found == "g.fa: 2 contigs, 800 bases; chr1 has 500"


def test_damaged_fastas(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "g.fa", random_genome(chr1=500))
    (tmp_path / "g.fa.fai").write_text("chr1\t900\t6\t60\t61\n")
    (found,) = check_fasta(str(fasta))
    assert found.level == "problem"
    assert "does not fit" in found.found
    assert "samtools faidx" in f"{found.found}; {found.do}"
    (found,) = check_fasta(str(tmp_path / "none.fa"))
    assert found.level == "problem"
    assert found.found.endswith("no such FASTA file")
    assert found.do == "give the path or URL of a FASTA with --fasta"


# model


def test_engines_agree(tmp_path: Path) -> None:
    found = levels(models.check_model(str(write_model(tmp_path / "m"))))
    assert found == {"model": "ok", "engines": "ok", "GPU and CPU": "skipped"}


def test_the_variants_are_snvs_and_indels() -> None:
    alleles, sequence = models.random_variants(40)
    assert (np.diff(alleles.start) > 0).all()
    lengths = [(int(n), len(alt)) for n, alt in zip(alleles.ref_length, alleles.alt, strict=True)]
    assert lengths.count((1, 1)) >= 24
    assert len({alt - ref for ref, alt in lengths}) > 3
    snvs = [row for row, pair in enumerate(lengths) if pair == (1, 1)]
    assert all(b"ACGT".index(alleles.alt[r]) != sequence.codes[alleles.start[r]] for r in snvs[:9])


@pytest.mark.parametrize("wrong", [2e-5, np.nan])
def test_engines_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    right = models.effects

    def effects(directory: Path, engine: str, *rest: object) -> np.ndarray:
        return right(directory, engine, *rest) + np.float32(wrong if engine == "incremental" else 0)

    monkeypatch.setattr(models, "effects", effects)
    found = only(models.check_model(str(write_model(tmp_path / "m"))), "engines")
    assert found.level == "problem"
    assert "--engine full" in found.do


def test_gpu_and_cpu_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    right = models.effects
    off = [0.0]

    def effects(directory: Path, engine: str, device: str, *rest: object) -> np.ndarray:
        assert not torch.backends.cudnn.allow_tf32
        shift = off[0] if device == "cuda" else 0.0
        return right(directory, engine, "cpu", *rest) + np.float32(shift)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(models, "effects", effects)
    model = str(write_model(tmp_path / "m"))
    assert only(models.check_model(model), "GPU and CPU").level == "ok"
    off[0] = 1e-3
    assert only(models.check_model(model), "GPU and CPU").level == "problem"


def test_damaged_models(tmp_path: Path) -> None:
    weights = write_model(tmp_path / "m") / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (found,) = models.check_model(str(tmp_path / "m"))
    assert found.level == "problem"
    assert "sha256" in found.found
    (found,) = models.check_model("nosuch")
    assert "no model is called" in found.found
    assert found.do


@pytest.mark.parametrize(("value", "check"), [(np.nan, "model"), (3e38, "effects")])
def test_a_net_that_is_not_finite(tmp_path: Path, value: float, check: str) -> None:
    """The net of a diverged training, with a correct digest."""
    from safetensors.numpy import load_file, save_file

    directory = write_model(tmp_path / "m")
    weights, spec = directory / "weights.safetensors", directory / "model.json"
    tensors = load_file(weights)
    name = next(name for name, values in tensors.items() if values.dtype == np.float32)
    tensors[name] = np.full_like(tensors[name], value)
    save_file(tensors, weights)
    document = json.loads(spec.read_text())
    spec.write_text(json.dumps({**document, "weights_sha256": file_sha256(weights)}))
    findings = models.check_model(str(directory))
    (found,) = [one for one in findings if one.level == "problem"]
    assert found.check == check
    assert "values that are not finite" in found.found
    assert found.do


# the command


def test_a_terminal_gets_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    cli_doctor._print_findings([Finding("disk", "problem", "[red]full[/red]", "free some")])
    output = capsys.readouterr().out
    for word in ("problem", "disk", "[red]full[/red]", "free some"):
        assert word in output


def doctor(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(raygenome.cli.app, ["doctor", *words])
    return done.exit_code, done.stdout


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raygenome.doctor.doctor.check_clusters", check_clusters)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fasta = write_fasta(tmp_path / "g.fa", random_genome(chr1=500))
    words = ["--fasta", str(fasta), "--model", str(write_model(tmp_path / "m"))]
    words += ["--out", str(tmp_path / "run")]
    code, output = doctor(*words)
    assert output.splitlines()[-1] == "0 problems found"
    assert code == 0

    fasta.write_text("<html>")
    code, output = doctor(*words)
    assert output.splitlines()[-1] == "1 problem found"
    assert code == 1
    code, output = doctor(*words, "--json")
    report = json.loads(output)
    assert code == report["problems"] == 1
    (problem,) = [row for row in report["findings"] if row["level"] == "problem"]
    assert problem["check"] == "FASTA"
    assert set(problem) == {"check", "level", "found", "do"}
