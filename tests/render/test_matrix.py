"""Who reaches whom, as text."""

from itertools import permutations

from warren.names import MachineName
from warren.render.matrix import Reach, matrix

SERVER, LAPTOP, PHONE = map(MachineName, ("server1", "laptop1", "phone1"))


def test_times_and_machines_in_between() -> None:
    pairs = [
        Reach(LAPTOP, SERVER, True, 0.4, 0),
        Reach(SERVER, LAPTOP, True, 12.345, 0),
        Reach(LAPTOP, PHONE, True, 0.651, 1),
        Reach(PHONE, LAPTOP, False),
        Reach(PHONE, SERVER, True),
    ]
    assert matrix(pairs) == (
        "ms        laptop1   phone1    server1\n"
        "laptop1   –         0.65 +1   0.40\n"
        "phone1    FAILS     –         ok\n"
        "server1   12.35     –         –\n"
        "\n"
        "4 of 5 pairs answer; +1: through one machine more\n"
    )


def test_many_machines_get_marks_and_their_failures_in_words() -> None:
    names = [MachineName(f"m{i:02}") for i in range(12)]
    pairs = [Reach(one, other, (one, other) != ("m03", "m07"), 0.5) for one, other in permutations(names, 2)]
    lines = matrix(pairs).splitlines()
    assert lines[0] == "m00   ·■■■■■■■■■■■"
    assert lines[3] == "m03   ■■■·■■■✗■■■■"
    assert lines[-3:] == ["m03   →   m07   FAILS", "", "131 of 132 pairs answer"]


def test_nothing_measured() -> None:
    assert matrix([]).endswith("0 of 0 pairs answer\n")
