"""`run`: which cluster it uses, and that it is as good as running the program directly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from cli_harness import Cli

from causeway.cluster import environment, processes

# Says when it is ready for a signal, and what became of it.
WAITS = """
import os, signal, sys, time
count = 0
def on(number, frame):
    global count
    count += 1
    print("got", signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(31)
signal.signal(signal.SIGINT, on)
signal.signal(signal.SIGTERM, on)
print("ready", os.getpid(), flush=True)
for _ in range(600):
    time.sleep(0.05)
    if count:
        time.sleep(0.3)
        print("count", count, flush=True)
        sys.exit(21)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_uses_the_running_cluster_and_passes_the_status_through(cli: Cli) -> None:
    target = cli.up()["target"]
    code = "import json, os, sys; print(json.dumps(dict(os.environ))); sys.exit(7)"
    done = cli.run("run", "--", *python(code))
    assert done.returncode == 7
    env = json.loads(done.stdout)
    assert env["JAX_PLATFORMS"] == "proxy"
    assert env["JAX_BACKEND_TARGET"] == target
    assert env["IFRT_PROXY_USE_INSECURE_GRPC_CREDENTIALS"] == "true"
    assert env["IFRT_PROXY_GRPC_MAX_ONGOING_HOST_BUFFER_STORES"] == environment.DEFAULT_UPLOADS
    assert cli.ok("status")["ok"]  # still there


def test_keeps_what_the_user_chose(cli: Cli) -> None:
    cli.up()
    names = ("JAX_PLATFORMS", "IFRT_PROXY_GRPC_MAX_ONGOING_HOST_BUFFER_STORES")
    code = f"import os; print(*(os.environ[n] for n in {names!r}))"
    chosen = {names[0]: "proxy,cpu", names[1]: "5"}
    assert cli.run("run", "--", *python(code), **chosen).stdout == "proxy,cpu 5\n"


def test_starts_and_ends_a_cluster_of_its_own(cli: Cli) -> None:
    code = (
        "import os, pathlib;"
        "print(*(p.parent.name for p in pathlib.Path(os.environ['CAUSEWAY_STATE_DIR'])"
        ".glob('*/state.json')))"
    )
    done = cli.run("run", "--slices=2", "--", *python(code))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run-")
    assert list(cli.state.glob("run-*")) == []


def test_a_shape_that_differs_gets_its_own_cluster(cli: Cli) -> None:
    target = cli.up()["target"]
    code = "import os; print(os.environ['JAX_BACKEND_TARGET'])"
    assert cli.run("run", "--slices=2", "--", *python(code)).stdout.strip() != target
    assert cli.run("run", "--slices=1", "--", *python(code)).stdout.strip() == target
    refused = cli.run("run", "--name=default", "--slices=2", "--", "true")
    assert refused.returncode == 1 and "another shape" in refused.stderr


def test_a_program_that_is_not_there(cli: Cli) -> None:
    cli.up()
    done = cli.run("run", "--", "no-such-program-here")
    assert done.returncode == 127 and "no-such-program-here" in done.stderr


def test_a_program_ended_by_a_signal(cli: Cli) -> None:
    cli.up()
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    assert cli.run("run", "--", *python(code)).returncode == 128 + signal.SIGSEGV


def start_waiting(cli: Cli, **keywords: object) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        cli.command("run", "--", *python(WAITS)),
        env=cli.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        **keywords,  # type: ignore[call-overload]
    )
    assert process.stdout is not None
    word, pid = process.stdout.readline().split()
    assert word == "ready"
    return process, int(pid)


def test_signals_reach_the_program_once(cli: Cli) -> None:
    cli.up()
    for number, status, words in (
        (signal.SIGINT, 21, "got SIGINT\ncount 1\n"),
        (signal.SIGTERM, 31, "got SIGTERM\n"),
    ):
        process, _ = start_waiting(cli)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=30)
        assert (process.returncode, printed) == (status, words)


def test_control_c_in_a_terminal_reaches_the_program_once(cli: Cli) -> None:
    cli.up()
    import pty

    # A child that leads a session with a controlling terminal, as in a shell.
    pid, master = pty.fork()
    if pid == 0:
        os.execve(sys.executable, cli.command("run", "--", *python(WAITS)), cli.env)
    printed = b""
    pressed = False
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:
            break
        if not chunk:
            break
        printed += chunk
        if b"ready" in printed and not pressed:
            os.write(master, b"\x03")
            pressed = True
    _, status = os.waitpid(pid, 0)
    os.close(master)
    assert os.waitstatus_to_exitcode(status) == 21
    assert b"count 1" in printed


def test_the_own_cluster_ends_even_when_run_is_killed(cli: Cli) -> None:
    process, program = start_waiting(cli)
    (file,) = cli.state.glob("run-*/state.json")
    state = json.loads(file.read_text())
    head = state["processes"][0]["pid"]
    process.kill()
    assert processes.wait_until(lambda: processes.start_time(state["pid"]) is None, 15.0)
    assert processes.start_time(head) is None
    os.kill(program, signal.SIGKILL)  # an orphan now, as under any killed shell
    process.communicate(timeout=10)


def test_a_python_without_jax_is_replaced_by_ours(cli: Cli, tmp_path) -> None:
    cli.up()
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    (bare / "python").chmod(0o755)
    path = f"{bare}:{os.environ['PATH']}"
    done = cli.run("run", "--", "python", "-c", "import jax; print(jax.__version__)", PATH=path)
    assert done.returncode == 0, done.stderr
    assert "has no JAX" in done.stderr


def test_a_cluster_whose_head_died_is_refused(cli: Cli) -> None:
    cli.up()
    os.kill(cli.state_file()["processes"][0]["pid"], signal.SIGKILL)
    assert processes.wait_until(lambda: cli.state_file()["phase"] == "failed", 10.0)
    done = cli.run("run", "--", "true")
    assert done.returncode == 7 and "causeway down" in done.stderr
