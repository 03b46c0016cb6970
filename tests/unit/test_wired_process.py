"""A process with a socket to us: the signals of a terminal are ours alone."""

import os

from service.runtime.wired_process import start_with_socket


def test_ctrl_c_of_a_terminal_does_not_reach_a_process_that_is_still_starting() -> None:
    process, ours = start_with_socket("timeit", "-n", "1", "pass")
    with ours:
        assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
        process.kill()
        process.wait()
