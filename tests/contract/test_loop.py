"""The loop with an objective that uses every hook: one and two processes, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

PROGRAM = Path(__file__).parents[1] / "loop_program.py"
LAST = "step-00000028"


def start(folder: Path, processes: int, pause: float = 0.0) -> subprocess.Popen[bytes]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    command = [*launcher, str(PROGRAM), str(folder), str(pause)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error.decode()[-3000:]


def losses(folder: Path) -> list[float]:
    log = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry["loss"] for entry in map(json.loads, log) if "loss" in entry]


def kill_after(folder: Path, state: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not (folder / "state" / state / "cursor.json").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.08)  # into the steps after the checkpoint
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(start(folder, 1))
    return folder


def test_every_hook_is_used(whole: Path) -> None:
    rounds = sorted((whole / "rounds").glob("round-*.jsonl"))
    assert [path.name for path in rounds] == [f"round-{i:04d}.jsonl" for i in range(6)]
    first, third = ([json.loads(line) for line in path.read_text().splitlines()] for path in (rounds[0], rounds[2]))
    assert not any("negatives" in row for row in first), "no weights are two rounds old in the first round"
    assert all(row["negatives"][0]["source"] == "student@0" for row in third)
    weights = load_file(whole / "state" / LAST / "weights.safetensors")
    assert {"step.companions.scale.weight", "own_judge.weight"} <= weights.keys()
    assert (whole / "state" / LAST / "optimizer-judge.safetensors").exists()
    assert len(list((whole / "state" / LAST).glob("ring-*.safetensors"))) == 3
    assert len(losses(whole)) == 30


def test_killed_and_resumed_is_bit_identical(whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path, 1, pause=0.05)
    kill_after(tmp_path, "step-00000012", process)
    assert not (tmp_path / "log.jsonl").exists()
    finish(start(tmp_path, 1, pause=0.05))
    expected = load_file(whole / "state" / LAST / "weights.safetensors")
    resumed = load_file(tmp_path / "state" / LAST / "weights.safetensors")
    assert all(bool((expected[name] == resumed[name]).all()) for name in expected)
    assert losses(tmp_path) == losses(whole)
    chosen, again = (load_file(folder / "student" / "model.safetensors") for folder in (whole, tmp_path))
    assert all(bool((chosen[name] == again[name]).all()) for name in chosen)


@pytest.mark.slow
def test_two_processes_equal_one_and_resume(whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path, 2, pause=0.05)
    kill_after(tmp_path, "step-00000012", process)
    finish(start(tmp_path, 2, pause=0.05))
    expected = load_file(whole / "state" / LAST / "weights.safetensors")
    shared = load_file(tmp_path / "state" / LAST / "weights.safetensors")
    assert max(float((expected[name] - shared[name]).abs().max()) for name in expected) < 2e-5
    assert losses(tmp_path) == pytest.approx(losses(whole), abs=2e-5)
    assert [json.loads(line)["example"]["id"] for line in (tmp_path / "rounds/round-0003.jsonl").open()] == [
        f"e{i}" for i in range(40)
    ]
