"""The files in jobs/ that a user copies: each is valid, and fits the program."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml
from support.paths import JOBS, ROOT

import raygenome
import raygenome.cli

SCRIPTS = ["demo.sh", "score.sh", "train.sh", "clusters/slurm.sh"]
CLUSTERS = ["clusters/aws.yaml", "clusters/gcp.yaml"]
FILES = [
    *SCRIPTS,
    *CLUSTERS,
    *(f"clusters/{name}" for name in ("rayjob.yaml", "Dockerfile", "grafana.json")),
]
IMAGE = f"REGISTRY/raygenome:{raygenome.__version__}"


def pinned(package: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    (version,) = [line.partition("==")[2] for line in lines if line.startswith(f"{package}==")]
    return version


def document(name: str) -> dict[str, Any]:
    return yaml.safe_load((JOBS / name).read_text())


# this is all of them


@pytest.mark.parametrize("name", FILES)
def test_nothing_of_one_machine_or_secret(name: str) -> None:
    text = (JOBS / name).read_text()
    assert not re.search(
        r"/work\b|/root\b|AKIA[0-9A-Z]{16}|ami-[0-9a-f]{8}|TODO|[0-9a-f]{32}", text
    )
    assert "RAY_AUTH_TOKEN=" not in text.replace("RAY_AUTH_TOKEN=$(od ", "")
    for version in re.findall(r"raygenome:([\w.]+)", text):
        assert version == raygenome.__version__


def raygenome_lines(text: str) -> Iterator[list[str]]:
    """Yield the words of every raygenome command in a file, including examples in comments."""
    text = re.sub(r"\\\n[ #]*", " ", text)  # a line that is continued
    for line in text.splitlines():
        for found in re.finditer(r"(?:^|[ #;`])raygenome (?=[a-z])([^|;`]*)", line):
            words = found[1].split(" || ")[0].split(">/dev/null")[0]
            yield shlex.split(words, comments=True)


def known_options(words: list[str]) -> set[str]:
    """Return the options of the command that `words` begins with."""
    command: Any = typer.main.get_command(raygenome.cli.app)
    known: set[str] = set()
    for word in words:
        known |= {option for parameter in command.params for option in parameter.opts}
        if word == "--" or not hasattr(command, "commands"):
            break
        assert word in command.commands, f"raygenome has no command {word!r}"
        command = command.commands[word]
    return known | {option for parameter in command.params for option in parameter.opts}


def commands_of(name: str) -> list[list[str]]:
    text = (JOBS / name).read_text()
    if name == "rayjob.yaml":
        text += f"\n{document(name)['spec']['entrypoint']}"
    found = []
    for words in raygenome_lines(text):
        if "--" in words:  # submit -- score ...
            at = words.index("--")
            found.append(words[at + 1 :])
            words = words[:at]
        found.append(words)
    commands = set(typer.main.get_command(raygenome.cli.app).commands)  # type: ignore[attr-defined]
    return [words for words in found if words and words[0] in commands]


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("demo.sh", 6),
        ("score.sh", 5),
        ("train.sh", 6),
        ("clusters/slurm.sh", 1),
        ("clusters/aws.yaml", 2),
        ("clusters/rayjob.yaml", 1),
    ],
)
def test_every_command_and_option_exists(name: str, least: int) -> None:
    commands = commands_of(name)
    assert len(commands) >= least
    for words in commands:
        known = known_options(words)
        used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= known, f"{name}: raygenome {words[0]} has no {used - known}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse(name: str) -> None:
    subprocess.run(["bash", "-n", JOBS / name], check=True)
    assert "set -euo pipefail" in (JOBS / name).read_text()


# ray up


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_takes_the_cluster(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(document(name)))


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_is_closed_and_scales_from_nothing(name: str) -> None:
    config = document(name)
    assert config["docker"]["image"] == IMAGE
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    (fix,) = config["initialization_commands"]
    assert f"/tmp/ray_tmp_mount/{config['cluster_name']}/home/ray/.ray" in fix
    (_, start) = config["head_start_ray_commands"]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--num-cpus=0" in start
    gpu = config["available_node_types"]["gpu"]
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, config["max_workers"])
    assert "spot" in json.dumps(gpu["node_config"]).lower()


# KubeRay


def an_object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


TEXT, WHOLE, YES, ANY = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {}
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITIES = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
POD = an_object(
    "spec",
    spec=an_object(
        "containers",
        serviceAccountName=TEXT,
        securityContext=an_object(runAsNonRoot=YES, runAsUser=WHOLE, fsGroup=WHOLE),
        tolerations={
            "type": "array",
            "items": an_object(
                key=TEXT,
                operator={"enum": ["Exists", "Equal"]},
                effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
            ),
        },
        containers={
            "type": "array",
            "items": an_object(
                "name image",
                name=TEXT,
                image=TEXT,
                env={"type": "array", "items": an_object("name", name=TEXT, value=TEXT)},
                resources=an_object(requests=QUANTITIES, limits=QUANTITIES),
                volumeMounts={
                    "type": "array",
                    "items": an_object("name mountPath", name=TEXT, mountPath=TEXT),
                },
            ),
        },
        volumes={
            "type": "array",
            "items": an_object(
                "name", name=TEXT, emptyDir=an_object(sizeLimit={"type": ["string", "integer"]})
            ),
        },
    ),
)
#: The fields that are used, as defined by KubeRay (ray.io_rayjobs.yaml, v1).
RAYJOB = an_object(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=an_object("name", name=TEXT),
    spec=an_object(
        "entrypoint rayClusterSpec",
        entrypoint=TEXT,
        backoffLimit=WHOLE,
        activeDeadlineSeconds=WHOLE,
        shutdownAfterJobFinishes=YES,
        ttlSecondsAfterFinished=WHOLE,
        rayClusterSpec=an_object(
            "headGroupSpec",
            rayVersion=TEXT,
            authOptions=an_object(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
            enableInTreeAutoscaling=YES,
            autoscalerOptions=an_object(idleTimeoutSeconds=WHOLE),
            headGroupSpec=an_object("template", rayStartParams=TEXTS, template=POD),
            workerGroupSpecs={
                "type": "array",
                "items": an_object(
                    "groupName maxReplicas minReplicas template",
                    groupName=TEXT,
                    replicas=WHOLE,
                    minReplicas=WHOLE,
                    maxReplicas=WHOLE,
                    rayStartParams=TEXTS,
                    template=POD,
                ),
            },
        ),
    ),
)


def test_the_rayjob_has_the_fields_of_kuberay() -> None:
    jsonschema.validate(document("clusters/rayjob.yaml"), RAYJOB)


def test_the_rayjob_is_closed_resumes_and_scales_from_nothing() -> None:
    spec = document("clusters/rayjob.yaml")["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (gpu,) = cluster["workerGroupSpecs"]
    assert gpu["minReplicas"] == 0 < gpu["maxReplicas"]
    words = shlex.split(spec["entrypoint"])
    assert words[words.index("--workers") + 1] == str(gpu["maxReplicas"])
    assert "--resume" in words
    assert spec["backoffLimit"] > 0
    assert spec["activeDeadlineSeconds"] > 24 * 3600
    for pod in (cluster["headGroupSpec"], gpu):
        (container,) = pod["template"]["spec"]["containers"]
        assert container["image"] == IMAGE
        assert container["resources"]["requests"] == container["resources"]["limits"]


# Docker


def dockerfile() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile: (name, rest)."""
    text = re.sub(r"^#.*\n", "", (JOBS / "clusters/Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(name, rest) for line in lines if line for name, _, rest in [line.partition(" ")]]


def test_the_image_is_made_of_what_is_here() -> None:
    steps = dockerfile()
    sent = (JOBS / "clusters/Dockerfile.dockerignore").read_text().split()
    known = {"FROM", "RUN", "ENV", "USER", "WORKDIR", "COPY", "CMD"}
    assert {name for name, _ in steps} <= known
    for name, rest in steps:
        if name == "COPY":
            sources = [word for word in rest.split() if not word.startswith("--")][:-1]
            assert sources
            assert all((ROOT / source).exists() for source in sources)
            assert all(f"!{source}" in sent for source in sources)
    users = [rest for name, rest in steps if name == "USER"]
    assert users == ["ray"]
    text = " ".join(rest for _, rest in steps)
    assert "--uid 1000 ray" in text
    assert "-c src/constraints.txt" in text
    assert "HOME=/home/ray" in text  # where aws.yaml puts the token
    assert "wget" in text
    assert "torch" not in text  # its version is that of constraints.txt
    assert ("FROM", f"python:{project_python()}-slim-bookworm") in steps
    assert steps[-1][0] == "CMD"


def project_python() -> str:
    found = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert found
    return found[1]


# Grafana


def exported() -> set[str]:
    """Return the names in Prometheus of the metrics that `pool/metrics.py` records."""
    source = (ROOT / "raygenome" / "pool" / "metrics.py").read_text()
    names = set()
    for kind, name in re.findall(r'_metric\(\s*(\w+), "(\w+)"', source):
        ends = {"Counter": ["_total"], "Histogram": ["_bucket", "_sum", "_count"], "Gauge": [""]}
        names |= {f"ray_raygenome_{name}{end}" for end in ends[kind]}
    return names


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((JOBS / "clusters/grafana.json").read_text())
    assert dashboard["schemaVersion"] >= 39
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert variables == {"datasource", "session", "model"}
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    assert {n for e in expressions for n in re.findall(r"ray_raygenome_\w+", e)} == exported()
    assert len(exported()) == 8
    for expression in expressions:
        assert expression.count("(") == expression.count(")")
        assert expression.count('model=~"$model"') == expression.count("ray_raygenome_")
    quantiles = re.findall(r"histogram_quantile\(([\d.]+)", " ".join(expressions))
    assert quantiles == ["0.5", "0.95"]
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)


# score.sh


def with_stubs(folder: Path, **stubs: str) -> dict[str, str]:
    """Write stubs of programs, and return an environment in which they come first.

    Each stub records its arguments, and then runs its script.
    """
    programs = folder / "bin"
    programs.mkdir()
    for name, script in stubs.items():
        program = programs / name
        program.write_text(
            '#!/bin/bash\nprintf "%s\\n" "$0 $*" >> "$CALLS"\n' + script.replace("\t", "  ")
        )
        program.chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY")}
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "CALLS": str(folder / "calls")}


def calls(folder: Path, program: str = "") -> list[str]:
    lines = (folder / "calls").read_text().replace(f"{folder / 'bin'}/", "").splitlines()
    return [line for line in lines if line.startswith(program)]


@pytest.mark.slow
def test_demo_sh_is_a_tour_that_works(tmp_path: Path) -> None:
    environment = with_stubs(tmp_path, raygenome=f'exec {sys.executable} -m raygenome "$@"\n')
    done = subprocess.run(
        ["bash", JOBS / "demo.sh"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "motif-breaking variants in the top 60" in done.stdout
    assert "demo-scores: OK" in done.stdout
    shown = [line[2:] for line in done.stdout.splitlines() if line.startswith("$ raygenome")]
    assert len(shown) == 6 + 2, "six steps, and the two commands that the demo itself prints"


@pytest.mark.slow
def test_score_sh_scores_the_demo(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "raygenome"]
    subprocess.run([*program, "demo", "--out", "d"], cwd=tmp_path, check=True, capture_output=True)
    environment = {
        **with_stubs(tmp_path, raygenome=f'exec {sys.executable} -m raygenome "$@"\n'),
        **{"VCF": "d/demo.vcf", "FASTA": "d/demo.fa", "MODEL": "demo", "OUT": "scores"},
    }
    words = ["bash", JOBS / "score.sh", "--workers", "0"]
    for _ in range(2):  # a finished run is not an error
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "scores: OK" in done.stdout
    assert not calls(tmp_path, "raygenome models pull")
    assert len(calls(tmp_path, "raygenome score")) == 2


@pytest.mark.parametrize(
    ("codes", "ends", "tries"),
    [("75 137 0", 0, 3), ("75 75 75 0", 75, 3), ("65 0", 65, 1), ("143 0", 143, 1)],
)
def test_score_sh_tries_again_what_may_pass(
    tmp_path: Path, codes: str, ends: int, tries: int
) -> None:
    script = (
        '[[ $1 == score ]] || exit 0\nread -ra codes < "$CODES"\n'
        'echo "${codes[@]:1}" > "$CODES"\nexit "${codes[0]}"\n'
    )
    (tmp_path / "codes").write_text(f"{codes}\n")
    environment = {
        **with_stubs(tmp_path, raygenome=script),
        **{"CODES": str(tmp_path / "codes"), "VCF": "v", "FASTA": "f", "OUT": "a b"},
    }
    done = subprocess.run(["bash", JOBS / "score.sh", "--device", "cuda"], env=environment)
    assert done.returncode == ends
    found = calls(tmp_path, "raygenome score")
    assert (
        found
        == ["raygenome score v --model deepsea --fasta f --out a b --resume --device cuda"] * tries
    )
    assert bool(calls(tmp_path, "raygenome verify")) == (ends == 0)


def test_train_sh_goes_from_peaks_to_scores(tmp_path: Path) -> None:
    environment = {
        **with_stubs(tmp_path, raygenome=""),
        **{"PEAKS": "p.tsv", "FASTA": "f", "TEST": "chr8 chr9:1-5", "VCF": "v"},
    }
    subprocess.run(["bash", JOBS / "train.sh", "--workers", "4"], env=environment, check=True)
    found = [call.removeprefix("raygenome ") for call in calls(tmp_path)]
    assert [call.split()[0] for call in found] == ["data", "train", "evaluate", "score", "top"]
    assert "--valid chr7 --test chr8 chr9:1-5 --background 100000 --resume" in found[0]
    assert found[1] == "train configs/basset-fast.yaml --data data --out run --resume --workers 4"
    assert (ROOT / "configs/basset-fast.yaml").exists()


# slurm.sh: the stub of srun runs its command here, once per node

SRUN = """
printf '%s\\n' "${RAY_AUTH_MODE:-} ${RAY_AUTH_TOKEN:-none} $SRUN_CPUS_PER_TASK" >> "$CALLS.srun"
while [[ $1 == --* ]]; do
  [[ $1 == --ntasks=* ]] && tasks=${1#*=}
  shift
done
pids=()
for ((i = 0; i < tasks; i++)); do "$@" & pids+=($!); done
trap 'kill "${pids[@]}"; wait; exit 143' TERM
wait
"""
RAY = """
case $1 in
  start)
    [[ -z ${FAILS:-} || $* == *--head* ]] || exit 1
    trap 'echo ended >> "$CALLS.ended"; exit 0' TERM
    echo $$ >> "$CALLS.nodes"
    while true; do sleep 0.05; done ;;
  status)
    echo "Node status"; echo "Active:"
    for ((i = 0; i < $(wc -l < "$CALLS.nodes"); i++)); do echo " 1 node_0$i"; done
    echo "Pending:"; echo " (no pending nodes)" ;;
esac
"""
SCORE = """
echo $RAY_AUTH_TOKEN > "$CALLS.score"
trap 'exit 143' TERM
[[ -z ${LASTS:-} ]] || while true; do sleep 0.05; done
exit "${CODE:-0}"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield an environment with stubs of Slurm and Ray; end processes that a failed test leaves."""
    stubs = {
        "srun": SRUN,
        "scontrol": '[[ $1 != show ]] || printf "n1\\nn2\\nn3\\n"\n',
        "hostname": "echo 10.0.0.1 fe80::1\n",
        "ray": RAY,
        "raygenome": SCORE,
    }
    yield {
        **with_stubs(tmp_path, **stubs),
        **{"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_NODELIST": "n[1-3]"},
        **{"SLURM_CPUS_PER_TASK": "6", "SLURM_GPUS_ON_NODE": "2"},
    }
    for pid in (tmp_path / "calls.nodes").read_text().split():
        with contextlib.suppress(OSError):
            if str(tmp_path).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)


WORDS = ["bash", str(JOBS / "clusters/slurm.sh"), "v.vcf", "--model", "m", "--out", "a b"]
ADDRESS = "10.0.0.1:" + str(10000 + 4711 % 2200 * 10)


def finish(folder: Path, process: subprocess.Popen[bytes]) -> int:
    """Return the exit code; check that no started process is left."""
    code = process.wait(60)
    for pid in Path(f"{folder}/calls.nodes").read_text().split():
        deadline = time.monotonic() + 20
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline, "a node was left running"
            time.sleep(0.05)
    return code


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 75])
def test_slurm_sh_joins_all_nodes_and_ends_as_the_run_does(
    tmp_path: Path, slurm: dict[str, str], code: int
) -> None:
    process = subprocess.Popen(WORDS, env={**slurm, "CODE": str(code)})
    assert finish(tmp_path, process) == code
    (head, *workers) = sorted(calls(tmp_path, "ray start"), key=lambda call: "--head" not in call)
    assert len(workers) == 2
    assert f"--head --node-ip-address=10.0.0.1 --port={ADDRESS[9:]} --dashboard-host=127" in head
    assert all(f"ray start --address={ADDRESS} --block" in worker for worker in workers)
    assert all("--num-cpus=6 --num-gpus=2" in call for call in (head, *workers))
    assert calls(tmp_path, "raygenome") == [
        f"raygenome score v.vcf --model m --out a b --address {ADDRESS} --resume"
    ]
    assert len((tmp_path / "calls.ended").read_text().split()) == 3
    assert not calls(tmp_path, "ray stop")

    token = (tmp_path / "calls.score").read_text().strip()
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    assert token not in (tmp_path / "calls").read_text()
    started = (tmp_path / "calls.srun").read_text().splitlines()
    assert started[1:] == [f"token {token} 6"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(("number", "again"), [(signal.SIGTERM, False), (signal.SIGUSR1, True)])
def test_slurm_sh_stops_and_is_queued_again_where_time_is_up(
    tmp_path: Path, slurm: dict[str, str], number: int, again: bool
) -> None:
    process = subprocess.Popen(WORDS, env={**slurm, "LASTS": "1"})
    deadline = time.monotonic() + 60
    while not (tmp_path / "calls.score").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    assert finish(tmp_path, process) == 143
    assert (calls(tmp_path, "scontrol requeue") == ["scontrol requeue 4711"]) == again
    assert len((tmp_path / "calls.ended").read_text().split()) == 3


@pytest.mark.slow
def test_slurm_sh_ends_where_a_node_does_not_start(tmp_path: Path, slurm: dict[str, str]) -> None:
    with (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(WORDS, env={**slurm, "FAILS": "1"}, stderr=stderr)
        assert finish(tmp_path, process) == 74
    assert "a node could not start Ray" in (tmp_path / "stderr").read_text()
    assert not calls(tmp_path, "raygenome")
