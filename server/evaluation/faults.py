"""What is wrong with what an evaluation is given."""


class SetFault(Exception):
    """A set, a rubric or a config that cannot be followed: names its place and what to do."""


class JudgeFault(Exception):
    """A judge that gives no verdict: it is not there, or answers nonsense."""
