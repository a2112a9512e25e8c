"""Reports for people and for build servers: text, JUnit's XML, HTML."""

import html
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from trivet.server.evaluation.report import Change, Outcome, Report, changes

_BAD = (Outcome.FAILED, Outcome.REGRESSION, Outcome.ERROR)
_STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}"
    "pre{white-space:pre-wrap;margin:0}.passed{color:#176b2c}.known{color:#666}"
    ".failed,.regression,.error{color:#a4161a}"
)


def as_text(report: Report, before: Report | None = None) -> str:
    """A few lines, and one for each case that did not pass or ended otherwise than before."""
    lines = [_head(report)]
    lines += [
        f"  {case.outcome.value:10} {case.key}: {case.why}"
        for case in report.cases
        if case.outcome is not Outcome.PASSED
    ]
    lines += [f"  {_changed(each)}" for each in changes(report, before)]
    lines += [f"  {each}" for each in _figures(report)]
    lines += [f"  not passed: {fault}" for fault in report.faults]
    return "\n".join(lines)


def as_junit(report: Report) -> str:
    """A suite for each set, and one for the budgets."""
    root = ET.Element("testsuites", name=f"{report.model} version {report.version}")
    for name in report.sets:
        cases = [case for case in report.cases if case.set == name]
        bad = [case for case in cases if case.outcome in _BAD]
        errors = [case for case in bad if case.outcome is Outcome.ERROR]
        suite = _suite(root, name, len(cases), len(bad) - len(errors), len(errors))
        for case in cases:
            element = ET.SubElement(
                suite, "testcase", classname=name, name=case.id, time=f"{case.latency_s:.6f}"
            )
            if case.outcome is Outcome.KNOWN:
                ET.SubElement(element, "skipped", message=_xml(f"never passed: {case.why}"))
            elif case.outcome in _BAD:
                kind = "error" if case.outcome is Outcome.ERROR else "failure"
                fault = ET.SubElement(
                    element, kind, type=case.outcome.value, message=_xml(case.why)
                )
                fault.text = _xml(case.answer)
    broken = [budget for budget in report.budgets if not budget.is_kept]
    suite = _suite(root, "budgets", len(report.budgets), len(broken), 0)
    for budget in report.budgets:
        element = ET.SubElement(suite, "testcase", classname="budgets", name=budget.name)
        if budget in broken:
            told = f"{budget.value:g}, the bound is {budget.limit:g}"
            ET.SubElement(element, "failure", message=told)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


def as_html(report: Report, before: Report | None = None) -> str:
    """One page without scripts; what models wrote is shown as text."""
    known = {} if before is None else {case.key: case for case in before.cases}
    rows = []
    for case in report.cases:
        old = known.get(case.key)
        was = "" if before is None else "new" if old is None else old.outcome.value
        old_answer = old.answer if old is not None and old.answer != case.answer else ""
        rows.append(
            f"<tr><td>{html.escape(case.key)}</td>"
            f'<td class="{case.outcome.value}">{case.outcome.value}</td><td>{was}</td>'
            f"<td>{html.escape(case.why)}</td><td><pre>{html.escape(case.answer)}</pre></td>"
            f"<td><pre>{html.escape(old_answer)}</pre></td>"
            f"<td>{case.latency_s * 1000:.1f}</td></tr>"
        )
    than = "" if before is None else f"<p>Compared with version {html.escape(before.version)}.</p>"
    told = "".join(f"<li>{html.escape(each)}</li>" for each in (*report.faults, *_figures(report)))
    return (
        f"<!doctype html><html><head><meta charset='utf-8'><title>{html.escape(report.model)}"
        f"</title><style>{_STYLE}</style></head><body><h1>{html.escape(_head(report))}</h1>{than}"
        f"<ul>{told}</ul><table><tr><th>case</th><th>outcome</th><th>before</th><th>why</th>"
        "<th>answer</th><th>answer before</th><th>ms</th></tr>"
        f"{''.join(rows)}</table></body></html>\n"
    )


def _head(report: Report) -> str:
    verdict = "passed" if report.passed else "NOT PASSED"
    num_passed = report.count(Outcome.PASSED)
    return (
        f"{report.model} version {report.version}: {verdict}, {num_passed} of "
        f"{len(report.cases)} cases"
    )


def _figures(report: Report) -> Iterator[str]:
    for budget in report.budgets:
        bound = "at least" if budget.is_least else "at most"
        yield f"{budget.name}: {budget.value:g} ({bound} {budget.limit:g})"
    judge = report.judge
    if judge is not None:
        yield (
            f"judge: {judge.votes} vote(s), {judge.cached} remembered, agreement "
            f"{judge.agreement:.2f}, {judge.tokens} tokens, cost {judge.cost:g}"
        )


def _changed(change: Change) -> str:
    if change.before is None:
        return f"new: {change.case.key} {change.case.outcome.value}"
    before, now = change.before.outcome.value, change.case.outcome.value
    return f"changed: {change.case.key} {before} -> {now}"


def _suite(root: ET.Element, name: str, tests: int, failures: int, errors: int) -> ET.Element:
    counts = {"tests": str(tests), "failures": str(failures), "errors": str(errors)}
    return ET.SubElement(root, "testsuite", {"name": name, **counts})


def _xml(text: str) -> str:
    """Without the characters that XML has no place for."""
    return "".join(c for c in text if c in "\t\n\r" or " " <= c <= "\ud7ff" or c >= "\ue000")
