"""Whether a version of a model is good enough: sets of cases, what is expected of answers, reports,
and the gate before a version's traffic."""
