"""What one process alone can show; several are in the tests of whole runs."""

import pytest

from nejax.errors import UserError
from nejax.pipeline.run.processes import as_first_says, ending_with_the_others, first_then_all, is_first, join_processes


@pytest.mark.parametrize(
    ("coordinator", "n_processes", "process", "line"),
    [
        ("localhost:1234", 2, 2, "process=2: expected 0 to 1"),
        ("localhost:1234", 2, -1, "process=-1: expected 0 to 1"),
        ("localhost", 2, 0, "coordinator=localhost: expected HOST:PORT of process 0"),
        ("", 2, 0, "coordinator=: expected HOST:PORT of process 0"),
        ("localhost:http", 2, 0, "expected HOST:PORT"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(coordinator, n_processes, process, line):
    with pytest.raises(UserError, match=line) as error:
        join_processes(coordinator, n_processes, process)
    assert "\n" not in str(error.value)


def test_one_process_is_the_first_and_waits_for_nobody():
    done = []
    first_then_all(lambda: done.append(1))
    assert done == [1] and is_first()
    assert as_first_says(True) and not as_first_says(False)


@pytest.mark.parametrize("error", [UserError("no such corpus"), ValueError("a defect"), KeyboardInterrupt()])
def test_what_fails_in_one_process_is_raised_as_ever(error):
    with pytest.raises(type(error)), ending_with_the_others():
        raise error
