"""The guest itself: what every test in it takes for granted. Runs on the host."""

import contextlib
import signal
import subprocess
import time
from pathlib import Path

GUEST = Path(__file__).resolve().parents[1] / "kernel/guest"


def guest(*command, options=("--timeout", "60"), **more):
    return subprocess.run(
        [GUEST, *options, "--", *command], capture_output=True, text=True, timeout=120, **more
    )


def left_behind(marker):
    """Is there still a directory of the guest that was given this argument?"""
    for command in Path("/var/tmp").glob("torpor-guest.*/command"):
        with contextlib.suppress(FileNotFoundError):  # another guest's, gone meanwhile
            if marker in command.read_text():
                return True
    return False


def test_streams_status_arguments_and_environment_pass_through(tmp_path, monkeypatch):
    monkeypatch.setenv("GREETING", "two\nlines")
    script = 'echo "$1|$GREETING|$PWD"; echo oops >&2; exit 7'
    result = guest("bash", "-c", script, "-", "a b'\"$", cwd=tmp_path)
    assert result.stdout == f"a b'\"$|two\nlines|{tmp_path}\n"
    assert (result.stderr, result.returncode) == ("oops\n", 7)


def test_a_long_output_is_whole():
    result = guest("seq", "300000")
    assert result.stdout == "".join(f"{i}\n" for i in range(1, 300001))


def test_it_is_a_node_with_swap_and_all_controllers_on():
    result = guest("cat", "/sys/fs/cgroup/cgroup.subtree_control", "/proc/swaps")
    assert {"memory", "pids"} <= set(result.stdout.split())
    assert "/dev/ubda" in result.stdout


def test_writes_stay_in_the_guest_but_results_do_not(tmp_path):
    results = tmp_path / "results"
    script = f"echo x > {tmp_path}/lost && echo y > {results}/kept && touch /etc/torpor-test"
    result = guest("bash", "-c", script, options=["--timeout", "60", "--results", results])
    assert (result.returncode, result.stderr) == (0, "")
    assert (results / "kept").read_text() == "y\n"
    assert not (tmp_path / "lost").exists()
    assert not Path("/etc/torpor-test").exists()


def test_what_the_command_leaves_running_does_not_hold_it_up():
    result = guest("bash", "-c", "sleep 1000 & echo done")
    assert (result.stdout, result.returncode) == ("done\n", 0)


def test_a_guest_that_takes_too_long_is_a_failure():
    marker = "1000.0625"
    result = guest("sleep", marker, options=["--timeout", "4"])
    assert result.returncode == 99
    assert "still running after 4 s" in result.stderr
    assert not left_behind(marker)


def test_a_guest_that_dies_is_a_failure():
    result = guest("bash", "-c", "echo c > /proc/sysrq-trigger")
    assert result.returncode == 99
    assert "Kernel panic" in result.stderr


def test_an_interrupt_ends_it_and_cleans_up():
    script = "echo up; sleep 1000.125"
    with subprocess.Popen([GUEST, "--", "bash", "-c", script], stdout=-1) as process:
        assert process.stdout.readline() == b"up\n"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert time.monotonic() - began < 15
    assert not left_behind(script)
