"""Rewriting the command after --, the state of a job, and the answers of a head."""

import json
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.job_submission import JobDetails

from raygenome.cli import app, run
from raygenome.cli.submit import LeftAlone, read_words
from raygenome.errors import NoInput, StorageError, UsageError
from raygenome.submission import status
from raygenome.submission.client import RayJobsClient, check_id, new_id
from raygenome.submission.command import (
    RESTART_FLAG,
    SHARED_PATHS,
    UPLOADED,
    Command,
    entrypoint,
    pack,
)
from raygenome.submission.protection import check_dashboard

GROUP: Any = typer.main.get_command(app)
SCORE = ["score", "v.vcf", "--model", "deepsea", "--fasta", "g.fa"]
TRAIN = ["train", "c.yaml", "--data", "data", "--out", "run"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a new folder, with no cluster in the environment."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAYGENOME_FASTA"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def submitted(words: list[str], *, resume: bool = False) -> Command:
    root = GROUP.make_context("raygenome", ["submit", "--", *words])
    return read_words(root, words, resume=resume)


def parsed(words: list[str]) -> dict[str, Any]:
    return GROUP.commands[words[0]].make_context(words[0], words[1:]).params


# the words


def test_paths_become_absolute_and_names_stay(place: Path) -> None:
    command = submitted([*SCORE, "--out", "a/../b", "-f", "PASS", "--top-k=3"])
    assert command.words() == [
        *("score", f"{place}/v.vcf", "--model", "deepsea", "--fasta", f"{place}/g.fa"),
        *("--out", f"{place}/a/../b", "--top-k", "3", "--apply-filters", "PASS"),
    ]
    assert command.out == f"{place}/a/../b"


def test_a_run_without_a_name_gets_the_one_of_score(place: Path) -> None:
    assert submitted(SCORE).out == f"{place}/v.deepsea"
    assert submitted([*SCORE, "--dry-run"]).out is None


def test_a_model_directory_is_a_path_and_a_name_is_not(place: Path) -> None:
    (place / "deepsea").mkdir()
    assert submitted(SCORE).get("model").values == ("deepsea",)
    (place / "deepsea" / "model.json").touch()
    assert submitted(SCORE).get("model").values == (f"{place}/deepsea",)
    assert submitted([*SCORE, "--model", "run/model"]).get("model").values == (
        f"{place}/run/model",
    )


def test_values_of_environment_variables_are_sent_too(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYGENOME_FASTA", "g.fa")
    words = submitted(["score", "v.vcf", "--model", "m"]).words()
    assert words[words.index("--fasta") + 1] == f"{place}/g.fa"


def test_urls_stay_as_they_are() -> None:
    words = ["score", "s3://b/v.vcf.gz", "--model", "gs://b/m", "--fasta", "s3://b/g.fa"]
    command = submitted([*words, "--out", "s3://b/run"])
    assert command.words() == [*words, "--out", "s3://b/run"]
    command = submitted(["train", "/c.yaml", "--data", "s3://b/data", "--out", "gs://b/run"])
    assert command.words() == ["train", "/c.yaml", "--data", "s3://b/data", "--out", "gs://b/run"]


def test_a_value_that_looks_like_an_option_stays_a_value() -> None:
    command = submitted([*SCORE, "--workers=-1"])
    assert "--workers=-1" in command.words()
    assert parsed(command.words())["workers"] == "-1"


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "--workers": st.sampled_from(["0", "4", "auto"]),
        "--shard-size": st.integers(1, 10**6).map(str),
        "--device": st.sampled_from(["auto", "cpu", "cuda"]),
        "--effects": st.sampled_from(["full", "top"]),
        "--top-k": st.integers(-5, 99).map(str),
        "--log-odds": st.none(),
        "--json": st.none(),
        "--resume": st.none(),
        "--dry-run": st.none(),
        "--out": st.sampled_from(["run", "/abs/run", "../a b'c", "s3://b/run"]),
        "-r": st.lists(st.sampled_from(["chr1", "chr2:1,000-2,000", "-x"]), min_size=1, max_size=3),
        "-R": st.lists(st.sampled_from(["a.bed", "b c.bed", "s/a.bed"]), min_size=1, max_size=3),
        "-f": st.lists(st.sampled_from(["PASS", "a;b", "$(x)"]), min_size=1, max_size=2),
    },
)


@settings(max_examples=60, deadline=None)
@given(options=OPTIONS)
def test_a_command_means_the_same_when_rewritten(options: dict[str, Any]) -> None:
    words = list(SCORE)
    for flag, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [flag] if one is None else [flag, one]
    before = parsed(words)
    command = submitted(words)
    shell = shlex.split(entrypoint(command, bin_folder=None))
    assert shell[:2] == ["exec", "raygenome"]
    after = parsed(shell[2:])
    paths = {*SHARED_PATHS["score"], *UPLOADED["score"]}
    assert {k: v for k, v in after.items() if k not in paths} == {
        k: v for k, v in before.items() if k not in paths
    }
    for name in paths - {"out"}:
        assert absolutes(after[name]) == absolutes(before[name])
        assert all(Path(one).is_absolute() for one in listed(after[name]))
    assert shlex.split(command.line()) == shell[1:]
    assert set(submitted(shell[2:]).arguments) == set(command.arguments)


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def absolutes(value: Any) -> list[Path]:
    return [Path(one).absolute() for one in listed(value)]


@pytest.mark.parametrize("name", list(SHARED_PATHS))
def test_every_path_that_a_command_takes_is_known(name: str) -> None:
    """A new option of type Path must be named in one of the tables."""
    known = {*SHARED_PATHS[name], *UPLOADED[name], "model"}
    for parameter in GROUP.commands[name].params:
        if "Path" in str(parameter.type_descriptor):
            assert parameter.name in known, f"submission/command.py does not know {parameter.name}"
    assert known - {"model"} <= {parameter.name for parameter in GROUP.commands[name].params}
    assert RESTART_FLAG[name] in {parameter.name for parameter in GROUP.commands[name].params}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["data", "build"],
            2,
            "'data' cannot be submitted; a cluster runs score and train",
        ),
        (["--follow", "--", "query"], 2, "'query' cannot be submitted"),
        (["--", *SCORE, "--modle", "x"], 2, "No such option: --modle"),
        (["--", *SCORE, "--top-k", "many"], 2, "Invalid value for '--top-k'"),
        (["--", "score", "v.vcf", "--fasta", "g.fa"], 2, "Missing option '--model'"),
        (["--", *SCORE, "more"], 2, "Got unexpected extra argument(s) (more)"),
        (["--", "score", "-", *SCORE[2:], "--out", "x"], 2, "a job has no standard input"),
        (["--", "score", "-", *SCORE[2:]], 2, "a job has no standard input"),
        (["--", *SCORE, "--address", "auto"], 2, "--address after -- belongs to the command"),
        (["--resume", "--", *SCORE, "--overwrite"], 2, "--resume and --overwrite contradict"),
        (["--", *SCORE, "--overwrite", "--resume"], 2, "--resume and --overwrite contradict"),
        (["--resume", "--", *TRAIN, "--fresh"], 2, "--resume and --fresh contradict each other"),
        (["--", "train", "s3://b/c.yaml", *TRAIN[2:]], 2, "the config is s3:/b/c.yaml, a URL"),
        (["--id", "a/b", "--", *TRAIN], 2, "--id is 'a/b'; use letters, digits"),
    ],
)
def test_mistakes_are_reported_before_anything_is_sent(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no cluster: any request would fail with another message."""
    assert run(["submit", *words]) == code
    shown = capsys.readouterr()
    assert shown.err.startswith(f"raygenome: {message}")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_mistyped_option_has_the_commands_own_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in ([*SCORE, "--nix"], [*TRAIN, "--threads", "x"], ["train"]):
        assert run(words) == 2
        own = capsys.readouterr().err
        assert run(["submit", "--", *words]) == 2
        assert capsys.readouterr().err == own


def test_resume_is_added_once() -> None:
    for words in (SCORE, TRAIN):
        plain = submitted(words)
        assert "--resume" not in plain.words()
        resumed = submitted(words, resume=True)
        assert resumed.words().count("--resume") == 1
        assert set(submitted(resumed.words(), resume=True).arguments) == set(resumed.arguments)


def test_insecure_is_passed_on_to_the_job() -> None:
    root = GROUP.make_context("raygenome", ["submit", "--", *SCORE])
    assert "--insecure" in read_words(root, SCORE, insecure=True).words()
    assert "--insecure" not in submitted(SCORE).words()


# what is uploaded


def test_small_files_are_uploaded_under_different_names(place: Path, tmp_path: Path) -> None:
    (place / "a").mkdir()
    (place / "x.bed").write_text("one")
    (place / "a" / "x.bed").write_text("two")
    command = submitted([*SCORE, "-R", "x.bed", "-R", "a/x.bed"])
    sent = pack(command, tmp_path / "folder")
    assert sent.get("regions_file").values == ("inputs/1/x.bed", "inputs/2/x.bed")
    assert (tmp_path / "folder" / "inputs/1/x.bed").read_text() == "one"
    assert (tmp_path / "folder" / "inputs/2/x.bed").read_text() == "two"
    assert sent == pack(command, tmp_path / "again"), "a resumed run would not meet its own"
    assert {each for each in sent.arguments if each.name != "regions_file"} == {
        each for each in command.arguments if each.name != "regions_file"
    }


def test_a_file_in_a_store_stays_there(place: Path, tmp_path: Path) -> None:
    sent = pack(submitted([*SCORE, "-R", "s3://bucket/x.bed"]), tmp_path / "folder")
    assert sent.get("regions_file").values == ("s3://bucket/x.bed",)


def test_a_recipe_is_uploaded_and_data_is_not(place: Path, tmp_path: Path) -> None:
    (place / "c.yaml").write_text("architecture: basset")
    (place / "data").mkdir()
    (place / "data" / "big").touch()
    sent = pack(submitted(TRAIN), tmp_path / "folder")
    assert sent.words() == [
        *("train", "inputs/1/c.yaml", "--data", f"{place}/data", "--out", f"{place}/run")
    ]
    files = [path for path in (tmp_path / "folder").rglob("*") if path.is_file()]
    assert [file.name for file in files] == ["c.yaml"]


def test_what_cannot_be_uploaded_is_refused(place: Path, tmp_path: Path) -> None:
    command = submitted(TRAIN)
    with pytest.raises(NoInput, match=r"there is no file .*c\.yaml; it is read here and uploaded"):
        pack(command, tmp_path)
    (place / "c.yaml").mkdir()
    with pytest.raises(NoInput, match="there is no file"):
        pack(command, tmp_path)
    (place / "c.yaml").rmdir()
    with (place / "c.yaml").open("wb") as file:
        file.truncate(10_000_001)
    with pytest.raises(
        UsageError, match=r"c\.yaml has 10\.0 MB and would be uploaded with the job"
    ):
        pack(command, tmp_path)


def test_the_heads_own_raygenome_comes_first() -> None:
    line = entrypoint(submitted(TRAIN), bin_folder="/a b/bin")
    assert line.startswith("PATH=\"$PATH\":'/a b/bin' exec raygenome train ")
    assert entrypoint(submitted(TRAIN), bin_folder=None).startswith("exec raygenome train ")


def test_ids() -> None:
    job = new_id(submitted(TRAIN))
    assert job.startswith("raygenome-train-")
    assert check_id(job) == job
    assert new_id(submitted(TRAIN)) != job
    for bad in ("", "a b", "../x", "ä", "--", "a?b"):
        with pytest.raises(UsageError, match="--id is "):
            check_id(bad)


# a head that answers by a script


class Script(BaseHTTPRequestHandler):
    """Answers each request by the server's `script`: (method, path) -> status, text."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = self.command, self.path
        self.server.asked.append(key)  # type: ignore[attr-defined]
        status, text = self.server.script.get(key, (404, "no such place"))  # type: ignore[attr-defined]
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _answer  # noqa: N815 - names of http.server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def script() -> Iterator[HTTPServer]:
    """Yield a head that has no jobs and requires no token."""
    with HTTPServer(("127.0.0.1", 0), Script) as server:
        server.asked = []  # type: ignore[attr-defined]
        server.script = {  # type: ignore[attr-defined]
            ("GET", "/api/jobs/"): (200, "[]"),
            ("GET", "/api/version"): (200, version(ray.__version__)),
        }
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def version(number: str) -> str:
    return json.dumps({"version": "4", "ray_version": number, "ray_commit": "", "session_name": ""})


def url(server: HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def client_of(server: HTTPServer) -> RayJobsClient:
    return RayJobsClient(url(server), insecure=True)


@pytest.mark.parametrize("loopback", [True, False])
def test_an_open_head_is_refused_even_where_its_dashboard_is_on_loopback(
    script: HTTPServer, monkeypatch: pytest.MonkeyPatch, *, loopback: bool
) -> None:
    """The job itself would be refused, since its head listens on the network."""
    monkeypatch.setattr("raygenome.cluster.auth.is_loopback", lambda _host: loopback)
    check_dashboard(url(script), insecure=True)
    remedies = r"start it with RAY_AUTH_MODE=token, or .*`raygenome submit --insecure"
    with pytest.raises(UsageError, match=f"requires no token, so that anyone .*; {remedies}"):
        check_dashboard(url(script), insecure=False)
    with pytest.raises(UsageError, match="requires no token"):
        RayJobsClient(url(script))
    assert {path for _, path in script.asked} == {"/api/jobs/"}  # type: ignore[attr-defined]


def test_another_version_of_ray_is_one_line(
    script: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    client_of(script)
    assert not caplog.messages
    script.script["GET", "/api/version"] = 200, version("2.55.1")  # type: ignore[attr-defined]
    client_of(script)
    (line,) = caplog.messages
    assert f"runs Ray 2.55.1 and this machine has {ray.__version__}" in line


def test_a_typed_address_is_not_overridden(
    script: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    assert client_of(script).jobs() == []


@pytest.mark.parametrize(
    ("status_code", "text", "error", "message"),
    [
        (404, "Job x does not exist", NoInput, "there is no job 'x' at http"),
        (500, "Traceback:\n  here\nValueError: broken", StorageError, "status 500: ValueError: br"),
        (403, "Forbidden", UsageError, "refuses the token that is set here"),
    ],
)
def test_a_refusal_is_one_line(
    script: HTTPServer, status_code: int, text: str, error: type[Exception], message: str
) -> None:
    script.script["GET", "/api/jobs/x"] = status_code, text  # type: ignore[attr-defined]
    with pytest.raises(error, match=message) as found:
        client_of(script).job("x")
    assert "\n" not in str(found.value)


def test_a_taken_id_is_refused_before_the_upload(place: Path, script: HTTPServer) -> None:
    (place / "c.yaml").touch()
    script.script["GET", "/api/jobs/x"] = 200, details("RUNNING").model_dump_json()  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"there is already a job 'x' at .*; give another --id"):
        client_of(script).submit_command(submitted(TRAIN), "x")
    assert {method for method, _ in script.asked} == {"GET"}  # type: ignore[attr-defined]
    assert not [path for _, path in script.asked if "packages" in path]  # type: ignore[attr-defined]


def test_a_head_that_ends_is_one_line(script: HTTPServer) -> None:
    head = client_of(script)
    script.server_close()
    with pytest.raises(StorageError, match="does not answer any more"):
        head.jobs()


def test_a_log_is_followed_although_requests_fail(
    script: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is shown twice; a few failed requests in a row end the command."""
    monkeypatch.setattr("raygenome.submission.client._PAUSE_S", 0)
    monkeypatch.setattr("raygenome.submission.client._POLL_S", 0)
    failed = StorageError("no answer")
    answers: list[str | StorageError] = ["ab", failed, failed, "abcd", failed, "abcdefgh"]
    states = iter(["RUNNING"] * len(answers) + ["SUCCEEDED"])

    def logs(job: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, StorageError):
            raise answer
        return answer

    client = client_of(script)
    monkeypatch.setattr(client, "job", lambda _: details(next(states), driver_exit_code=0))
    monkeypatch.setattr(client, "logs", logs)
    shown: list[str] = []
    assert client.follow("x", shown.append).status == "SUCCEEDED"
    assert "".join(shown) == "abcdefgh"

    for state in ("RUNNING", "FAILED"):
        answers[:] = [failed] * 9
        monkeypatch.setattr(client, "job", lambda _, state=state: details(state))
        if state == "FAILED":  # its log was lost with its node
            assert client.follow("x", shown.append).status == state
        else:
            with pytest.raises(
                StorageError, match=r"the log of x cannot be read from .*job goes on"
            ):
                client.follow("x", shown.append)
    assert "".join(shown) == "abcdefgh"


# the state of a job


def details(state: str, **more: Any) -> JobDetails:
    plain = {"type": "SUBMISSION", "submission_id": "x", "entrypoint": "exec raygenome score v"}
    return JobDetails(**{**plain, "status": state, **more})


def test_exit_codes_are_the_commands() -> None:
    assert status.exit_code(details("SUCCEEDED", driver_exit_code=0)) == 0
    assert status.exit_code(details("FAILED", driver_exit_code=65)) == 65
    assert status.exit_code(details("FAILED", driver_exit_code=-9)) == 137
    assert status.exit_code(details("STOPPED")) == 143
    with pytest.raises(status.JobDied, match="died without an exit code: the node is gone"):
        status.exit_code(details("FAILED", message="trace\nthe node is gone\n"))
    with pytest.raises(status.JobDied, match="the cluster's head finds no raygenome"):
        status.exit_code(details("FAILED", driver_exit_code=127))
    assert status.JobDied.exit_code == 1


def test_the_state_of_a_job_comes_from_its_metadata() -> None:
    kept = {"raygenome": "1", "command": "raygenome score /v", "out": "/run"}
    state = status.state_of(details("RUNNING", metadata=kept, start_time=1500))
    assert (state.state, state.command, state.out) == ("running", "raygenome score /v", "/run")
    assert (state.started, state.ended, state.exit_code) == (1.5, None, None)
    assert status.state_of(details("PENDING")).command == "exec raygenome score v"


def test_a_stopped_run_is_continued_by_the_printed_command() -> None:
    words = [*SCORE, "--overwrite", "-r", "chr1:1-2", "--workers=-1"]
    command = submitted(words)
    kept = {"command": command.line()}
    again = status.resume_line(status.state_of(details("STOPPED", metadata=kept)), "http://h:1")
    assert again is not None
    unguarded = status.resume_line(
        status.state_of(details("STOPPED", metadata=kept)), None, insecure=True
    )
    assert unguarded is not None
    assert unguarded.startswith("raygenome submit --resume --insecure -- score ")
    front, rest = again.split(" -- ", 1)
    assert front == "raygenome submit --resume --address http://h:1"
    resumed = submitted(shlex.split(rest), resume=True)
    assert parsed(resumed.words()) == {
        **parsed(command.words()),
        "resume": True,
        "overwrite": False,
    }
    assert status.resume_line(status.state_of(details("STOPPED")), None) is None


def test_progress_is_the_jobs_own_or_nothing(tmp_path: Path) -> None:
    written = {"format": 1, "job": "x", "state": "scoring"}
    (tmp_path / "progress.json").write_text(json.dumps(written))
    assert status.read_progress(f"{tmp_path}/", "x") == written
    assert status.read_progress(str(tmp_path), "y") is None
    assert status.read_progress(None, "x") is None
    for broken in ("{", "[]", "null"):
        (tmp_path / "progress.json").write_text(broken)
        assert status.read_progress(str(tmp_path), "x") is None
    assert status.read_progress(str(tmp_path / "progress.json"), "x") is None
    assert status.read_progress(str(tmp_path / "nix"), "x") is None


SCORING = {
    **{"format": 1, "job": "x", "state": "scoring", "unit": "variants", "done": 5, "total": 20},
    **{"per_second": 2.5, "seconds_left": 6.0, "error": None},
}
WAIT = "no worker yet: each waits for a GPU, and Ray has 0 free"


def answer(
    script: HTTPServer,
    state: str,
    job: dict[str, Any],
    log: str,
    written: dict[str, Any] | None,
    out: Path,
) -> status.JobState:
    """Return the state of a job x with this log and this progress.json."""
    (out / "progress.json").unlink(missing_ok=True)
    if written is not None:
        (out / "progress.json").write_text(json.dumps(written))
    found = details(state, **job, metadata={"raygenome": "1", "out": str(out)})
    script.script["GET", "/api/jobs/x"] = 200, found.model_dump_json()  # type: ignore[attr-defined]
    logs = json.dumps({"logs": log})
    script.script["GET", "/api/jobs/x/logs"] = 200, logs  # type: ignore[attr-defined]
    return status.look(client_of(script), "x")


STILL = {**SCORING, "per_second": 0.0}


@pytest.mark.parametrize(
    ("state", "log", "written", "line", "progress"),
    [
        ("RUNNING", f"{WAIT}\n\n", None, WAIT, None),
        ("RUNNING", f"{WAIT}\n", SCORING, None, "scoring: 5 of 20 variants (25.0 %), 2.5 v"),
        ("RUNNING", f"{WAIT}\n", STILL, WAIT, "scoring: 5 of"),
        ("RUNNING", "", None, None, None),
        ("FAILED", f"{WAIT}\n", STILL, None, "was scoring: 5 of"),
        ("STOPPED", "", SCORING, None, "was scoring: 5 of"),
        ("STOPPED", "", {**SCORING, "state": "stopped"}, None, "stopped: 5 of"),
        ("SUCCEEDED", "", {**SCORING, "state": "done"}, None, "done: 5 of"),
        ("SUCCEEDED", "wrote /out\n", None, "wrote /out", None),
    ],
)
def test_how_far_a_job_is_or_was(
    script: HTTPServer,
    tmp_path: Path,
    state: str,
    log: str,
    written: dict[str, Any] | None,
    line: str | None,
    progress: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From progress.json, or, before there is any progress, from the last line of the log."""
    assert answer(script, state, {}, log, written, tmp_path).log_line == line
    assert run(["jobs", "status", "x", "--address", url(script), "--insecure"]) == 0
    shown = capsys.readouterr().out
    assert (f"\nprogress  {progress}" in shown) == (progress is not None)
    assert (f"\nlog       {line}\n" in shown) == (line is not None)
    assert (" left" in shown) == (state == "RUNNING" and written is not None)


@pytest.mark.parametrize(
    ("job", "written", "why"),
    [
        (
            {"driver_exit_code": 66, "message": "failed:\nraygenome: no v.vcf\n"},
            None,
            "raygenome: n",
        ),
        (
            {"driver_exit_code": 66, "message": "raygenome: no v.vcf"},
            SCORING,
            "raygenome: no v.vcf",
        ),
        ({"driver_exit_code": 1, "message": "x"}, {**SCORING, "error": "disk full"}, None),
        ({"driver_exit_code": 1}, None, "Ray gives no reason"),
        ({"driver_exit_code": 127}, None, "exited with 127: the cluster's head finds no rayge"),
        ({"message": "the node is gone"}, None, "died without an exit code: the node is gone"),
    ],
)
def test_why_a_job_failed(
    script: HTTPServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    job: dict[str, Any],
    written: dict[str, Any] | None,
    why: str | None,
) -> None:
    found = answer(script, "FAILED", job, "", written, tmp_path).why
    assert (found or "").startswith(why or "")
    assert (found is None) == (why is None)
    words = ["jobs", "status", "x", "--address", url(script), "--insecure"]
    assert run(words) == 0
    assert (f"\nwhy       {found}\n" in capsys.readouterr().out) == (why is not None)
    assert run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["why"] == found


def test_a_log_that_is_lost_with_its_node_hides_nothing_else(
    script: HTTPServer, tmp_path: Path
) -> None:
    answer(script, "FAILED", {}, "", None, tmp_path)
    script.script["GET", "/api/jobs/x/logs"] = 500, "no agent"  # type: ignore[attr-defined]
    assert status.look(client_of(script), "x").state == "failed"


def test_ctrl_c_while_following_prints_what_to_type() -> None:
    for insecure in (False, True):
        message = str(LeftAlone("x", "http://h:1", 130, insecure=insecure))
        assert message.count("--address http://h:1") == 2
        assert message.count("--insecure") == 2 * insecure


def test_progress_is_one_line() -> None:
    progress = {"state": "training", "unit": "steps", "done": 5, "total": 0, "per_second": 0.0}
    assert status.describe_progress(progress) == "training: 5 of 0 steps (500.0 %), 0.0 steps/s"
    more = {"shards": 4, "shards_done": 1, "seconds_left": 90, "error": "disk full"}
    assert status.describe_progress({**progress, **more, "total": 20}).endswith(
        "(25.0 %), 1 of 4 shards, 0.0 steps/s, 1 min 30 s left, disk full"
    )
