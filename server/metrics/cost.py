"""What requests cost, on the metrics page."""

from trivet.server.cost.ledger import Ledger
from trivet.server.metrics.text import Page

_COST, _TIME = "trivet_cost_total", "trivet_compute_seconds_total"


def write_costs(page: Page, ledger: Ledger | None) -> None:
    """By model, version and key; nothing on a server without prices."""
    if ledger is None:
        return
    accounts = sorted(ledger.accounts.items())
    labelled = [
        ({"model": a.model, "version": str(a.version), "key": a.key}, spent)
        for a, spent in accounts
    ]
    page.family(
        _COST,
        "counter",
        "What requests have cost, in the currency of --prices",
        ((_COST, labels, spent.cost) for labels, spent in labelled),
    )
    page.family(
        _TIME,
        "counter",
        "Requests' shares of the time that models computed, in seconds",
        ((_TIME, labels, spent.compute_s) for labels, spent in labelled),
    )
