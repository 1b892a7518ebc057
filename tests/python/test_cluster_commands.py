"""up, status, devices, down: what they report, and how they end when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request

import pytest
from cli_harness import FREE_PORTS, Cli

from causeway.cluster import processes


def pids(cli: Cli, name: str = "default") -> list[int]:
    state = cli.state_file(name)
    return [state["pid"], *(record["pid"] for record in state["processes"])]


def gone(pid: int) -> bool:
    return processes.wait_until(lambda: processes.start_time(pid) is None, 10.0)


def test_up_prints_what_a_shell_needs_and_down_leaves_nothing(cli: Cli) -> None:
    done = cli.run("up", "--slices=2", "--hosts-per-slice=2", *FREE_PORTS)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    port = cli.state_file()["proxy_port"]
    assert lines == [
        "export JAX_PLATFORMS=proxy",
        f"export JAX_BACKEND_TARGET=grpc://127.0.0.1:{port}",
        "export IFRT_PROXY_USE_INSECURE_GRPC_CREDENTIALS=true",
    ]
    assert "16 devices on 4 workers in 2 slices" in done.stderr
    everyone = pids(cli)
    assert len(everyone) == 6
    assert cli.ok("down")["ended"] == ["default"]
    assert all(gone(pid) for pid in everyone)
    assert not (cli.state / "default" / "state.json").exists()


def test_up_again_finds_the_running_one(cli: Cli) -> None:
    first = cli.up()
    second = cli.up()
    assert first["started"] and not second["started"]
    assert first["target"] == second["target"]


def test_up_refuses_another_shape_under_the_same_name(cli: Cli) -> None:
    cli.up("--slices=2")
    done = cli.run("up", "--slices=3", *FREE_PORTS)
    assert done.returncode == 4
    assert "slices is 2, asked for 3" in done.stderr
    assert "causeway down" in done.stderr


def test_two_clusters_side_by_side(cli: Cli) -> None:
    one, two = cli.up("--name=one"), cli.up("--name=two", "--slices=2")
    assert one["target"] != two["target"]
    report = cli.ok("status")
    assert [c["options"]["name"] for c in report["clusters"]] == ["one", "two"]
    assert cli.ok("down", "--name=one")["ended"] == ["one"]
    assert cli.ok("status", "--name=two")["clusters"][0]["alive_workers"] == [0, 1]


def test_status_and_devices_of_a_whole_cluster(cli: Cli) -> None:
    cli.up("--slices=2", "--devices-per-host=3")
    (report,) = cli.ok("status")["clusters"]
    assert report["healthy"] and report["alive_workers"] == [0, 1]
    assert [record["role"] for record in report["processes"]] == ["head", "worker-0", "worker-1"]
    found = cli.ok("devices")["devices"]
    assert [device["slice"] for device in found] == [0, 0, 0, 1, 1, 1]
    table = cli.run("devices").stdout
    assert "Slice" in table and table.count("alive") == 6


def test_nothing_running_is_its_own_exit_status(cli: Cli) -> None:
    for command in (["status"], ["devices"], ["kill", "slice", "0"], ["logs"]):
        done = cli.run(*command)
        assert done.returncode == 3, command
        assert "causeway up" in done.stderr
    assert cli.ok("down") == {"ok": True, "ended": []}


def test_a_worker_without_jaxlib_ends_up_with_one_line_and_a_clean_machine(cli: Cli) -> None:
    done = cli.run("up", *FREE_PORTS, FAKE_WORKER_FAILS="no jaxlib")
    assert done.returncode == 93
    assert "worker 0 cannot start: this Python has no jaxlib" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert cli.run("status").returncode == 3


def test_a_worker_that_keeps_dying_is_named_with_its_last_words(cli: Cli) -> None:
    done = cli.run("up", *FREE_PORTS, FAKE_WORKER_FAILS="the accelerator is on fire")
    assert done.returncode == 5
    assert "worker 0 cannot start: exit status 9: fake worker: the accelerator is on fire" in (
        done.stderr
    )


def test_a_head_that_fails_is_reported_as_json_too(cli: Cli) -> None:
    done = cli.run("up", *FREE_PORTS, "--output=json", FAKE_HEAD_FAILS="1")
    assert done.returncode == 5
    report = json.loads(done.stdout)
    assert report["exit_code"] == 5 and "fake head: told to fail" in report["error"]


def test_a_taken_port_is_named_with_its_flag(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        for flag in ("--proxy-port", "--ops-port", "--worker-port"):
            done = cli.run("up", *FREE_PORTS, f"{flag}={port}")
            assert done.returncode == 4
            assert f"port {port} on 127.0.0.1 is taken" in done.stderr
            assert flag in done.stderr


def test_a_worker_finds_its_port_taken_after_the_check(cli: Cli) -> None:
    # Only port + 1 is probed for worker 1; the fake binds it before the worker does.
    done = cli.run("up", *FREE_PORTS, FAKE_WORKER_FAILS="bind: Address already in use: 29005")
    assert done.returncode == 4
    assert "a port is taken" in done.stderr


def test_wrong_arguments_say_what_is_right(cli: Cli) -> None:
    done = cli.run("up", "--announce-slices=perhaps", *FREE_PORTS)
    assert done.returncode == 2
    assert "auto, true, false" in done.stderr
    assert cli.run("up", "--name=../x").returncode == 2


def test_a_dead_worker_comes_back_by_itself(cli: Cli) -> None:
    cli.up()
    old = cli.state_file()["processes"][1]["pid"]
    os.kill(old, signal.SIGKILL)

    def back() -> bool:
        record = cli.state_file()["processes"][1]
        return record["phase"] == "running" and record["pid"] not in (0, old)

    assert processes.wait_until(back, 10.0)
    record = cli.state_file()["processes"][1]
    assert record["restarts"] == 1 and record["reason"] == "killed by SIGKILL"


def test_kill_keeps_a_slice_down_until_restore(cli: Cli) -> None:
    cli.up("--slices=2", "--hosts-per-slice=2")
    killed = cli.ok("kill", "slice", "1")
    assert len(killed["pids"]) == 2 and all(gone(pid) for pid in killed["pids"])
    done = cli.run("status", "--output=json")
    assert done.returncode == 7
    (report,) = json.loads(done.stdout)["clusters"]
    assert report["alive_workers"] == [0, 1]
    assert [r["phase"] for r in report["processes"][3:]] == ["kept_down", "kept_down"]
    assert len(cli.ok("restore", "slice", "1")["pids"]) == 2
    assert cli.ok("status")["clusters"][0]["alive_workers"] == [0, 1, 2, 3]
    missing = cli.run("kill", "slice", "2")
    assert missing.returncode == 2 and "slices 0 to 1" in missing.stderr


def test_a_dead_head_is_reported_and_up_says_what_to_do(cli: Cli) -> None:
    cli.up()
    os.kill(cli.state_file()["processes"][0]["pid"], signal.SIGKILL)
    assert processes.wait_until(lambda: cli.state_file()["phase"] == "failed", 10.0)
    done = cli.run("status")
    assert done.returncode == 7 and "the head ended: killed by SIGKILL" in done.stdout
    again = cli.run("up", *FREE_PORTS)
    assert again.returncode == 4 and "causeway down" in again.stderr
    assert cli.ok("down")["ended"] == ["default"]


def test_what_a_killed_supervisor_left_is_cleaned_up(cli: Cli) -> None:
    cli.up()
    supervisor, *children = pids(cli)
    os.kill(supervisor, signal.SIGKILL)
    assert gone(supervisor)
    assert all(processes.start_time(pid) for pid in children)
    assert cli.run("status").returncode == 3
    assert all(gone(pid) for pid in children)
    assert cli.up()["started"]


def test_state_of_another_boot_is_ignored(cli: Cli) -> None:
    cli.up()
    state = cli.state_file()
    cli.ok("down")
    # The same pid may belong to anyone now: here, to this very test.
    state["pid"] = state["processes"][1]["pid"] = os.getpid()
    (cli.state / "default" / "state.json").write_text(json.dumps(state))
    assert cli.run("status").returncode == 3
    assert not (cli.state / "default" / "state.json").exists()


@pytest.mark.slow  # waits out the grace period
def test_down_kills_a_head_that_does_not_listen(cli: Cli) -> None:
    cli.up(FAKE_HEAD_IGNORES_SIGTERM="1")
    everyone = pids(cli)
    assert cli.ok("down")["ended"] == ["default"]
    assert all(gone(pid) for pid in everyone)


def test_the_supervisor_obeys_sigterm(cli: Cli) -> None:
    cli.up()
    everyone = pids(cli)
    os.kill(everyone[0], signal.SIGTERM)
    assert all(gone(pid) for pid in everyone)
    assert not (cli.state / "default" / "state.json").exists()


def test_logs_outlive_the_cluster(cli: Cli) -> None:
    cli.up("--slices=2")
    cli.ok("down")
    logs = cli.ok("logs", "--worker=1")["logs"]
    assert list(logs) == ["worker-1"] and "fake worker 1 joined" in logs["worker-1"][0]
    assert "fake head ready" in cli.run("logs", "--head").stdout


def test_the_head_answers_on_its_ops_port(cli: Cli) -> None:
    report = cli.up()
    with urllib.request.urlopen(report["ops_url"] + "/health", timeout=5) as answer:
        assert json.load(answer) == {"ok": True}


def test_every_command_has_help_and_json(cli: Cli) -> None:
    for command in (["up"], ["down"], ["status"], ["devices"], ["logs"], ["run"], ["demo"],
                    ["test"], ["build"], ["doctor"], ["version"], ["kill", "slice"],
                    ["restore", "slice"], ["bench"]):
        done = cli.run(*command, "--help", COLUMNS="200")
        assert done.returncode == 0, command
        if command != ["bench"]:
            assert "--output" in done.stdout, command


def test_the_version_is_a_command_and_an_option(cli: Cli) -> None:
    command, option = cli.run("version"), cli.run("--version")
    assert command.returncode == option.returncode == 0
    assert option.stdout == command.stdout
    assert option.stdout.startswith("causeway 0.")


def test_doctor_reports_as_json_and_names_remedies(cli: Cli) -> None:
    assert cli.ok("doctor")["ok"]
    done = cli.run("doctor", "--json", CAUSEWAY_HEAD_BINARY="/nowhere/causewayd")
    assert done.returncode == 93
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["head"]["level"] == "problem" and "build" in findings["head"]["remedy"]


def test_doctor_knows_what_slows_shared_memory_down() -> None:
    from causeway.checks import doctor

    small = "proc /proc proc rw 0 0\ntmpfs /dev/shm tmpfs rw,nosuid,size=8g 0 0\n"
    found = doctor.shared_memory(small, 4 << 30)
    assert found.level == "warning" and "huge=within_size /dev/shm" in found.remedy
    for huge in ("always", "within_size"):
        # What is mounted last is what is seen.
        mounts = f"{small}tmpfs /dev/shm tmpfs rw,size=8g,huge={huge} 0 0\n"
        assert doctor.shared_memory(mounts, 4 << 30).level == "ok"
    for huge in ("never", "advise"):
        mounts = small.replace("size=8g", f"size=8g,huge={huge}")
        assert doctor.shared_memory(mounts, 4 << 30).level == "warning"
    assert "--shm-size" in doctor.shared_memory(small, 64 << 20).remedy
    assert "network" in doctor.shared_memory("proc /proc proc rw 0 0\n", 4 << 30).text
