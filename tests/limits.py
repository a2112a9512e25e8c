"""The bounds of time that pytest and Hypothesis set themselves, scaled as all others are."""

import pytest
from hypothesis import HealthCheck, settings
from patience import patience


def scale_limit(item: pytest.Item) -> None:
    """Scales the limit of a test, its own or that of all, as it begins."""
    if item.config.getoption("timeout", None) is not None:
        return  # whoever runs the tests gave a limit: a debugger's, say
    own = item.get_closest_marker("timeout")
    limit_s = float(own.args[0] if own else item.config.getini("timeout"))
    item.add_marker(pytest.mark.timeout(patience(limit_s)), append=False)


def let_examples_take_their_time() -> None:
    """Hypothesis bounds each example by 200 ms, and the making of all by its own patience."""
    settings.register_profile(
        "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("patient")
