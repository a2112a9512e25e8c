"""What the metrics page shows of latencies, as `--metrics-config` says it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trivet.backends.api import InvalidConfig

SWITCHES = ("counter_latencies", "histogram_latencies", "summary_latencies")
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_FLAG = "--metrics-config"


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Which families of latencies there are, and which quantiles summaries have."""

    counter_latencies: bool = True
    histogram_latencies: bool = True
    summary_latencies: bool = False
    quantiles: tuple[float, ...] = QUANTILES

    @classmethod
    def parse(cls, given: Sequence[str]) -> "MetricsConfig":
        """From NAME=VALUE texts. Raises InvalidConfig for what is not known."""
        config = cls()
        for text in given:
            name, _, value = text.partition("=")
            if name == "summary_quantiles":
                config = replace(config, quantiles=_quantiles(value, text))
            elif name in SWITCHES and value.lower() in ("true", "false"):
                changed = {name: value.lower() == "true"}
                config = replace(config, **changed)  # type: ignore[arg-type]  # a switch
            else:
                raise InvalidConfig(
                    f"{_FLAG} {text}: known are {', '.join(f'{s}=true|false' for s in SWITCHES)} "
                    "and summary_quantiles=QUANTILE:ERROR,..."
                )
        return config


def _quantiles(value: str, text: str) -> tuple[float, ...]:
    """Triton's form is QUANTILE:ERROR; the error is a bound that ours keeps within."""
    found = []
    for part in value.split(","):
        quantile, _, error = part.partition(":")
        try:
            number, bound = float(quantile), float(error or 0)
        except ValueError:
            number = bound = -1.0
        if not (0 < number < 1 and 0 <= bound < 1):
            raise InvalidConfig(
                f"{_FLAG} {text}: '{part}' is not QUANTILE:ERROR with both between 0 and 1, such "
                "as 0.99:0.001"
            )
        found.append(number)
    return tuple(found)
