"""Numbers and durations as people read them."""

import pytest

from ferhpo.text import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (119.7, "2 min 0 s"), (3599.9, "1 h 0 min"), (7530, "2 h 5 min"),
     (86399.9, "1 d 0 h"), (200000, "2 d 7 h")],
)  # fmt: skip
def test_duration_never_shows_sixty_of_a_unit(seconds, text):
    assert duration(seconds) == text
