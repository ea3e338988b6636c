"""The exercises: each solution in a notebook passes its check, its stub says so, and a wrong answer is told what was expected."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers import checks
from helpers.examples import load_examples
from helpers.paths import ROOT
from helpers.tools import Tool

EXERCISES = {
    "01_schema_definition": {
        "cancel_subscription_tool": checks.check_cancel_subscription,
        "reply": checks.check_reply,
    },
    "02_negative_examples": {
        "my_negatives": checks.check_my_negatives,
        "invented_arguments": checks.check_invented_arguments,
    },
    "03_qlora_training": {"saved_share": checks.check_saved_share},
    "04_evaluation": {"missed_calls": checks.check_missed_calls},
    "05_safe_routing": {"coverage_and_risk": checks.check_coverage_and_risk},
}
CASES = [(notebook, function) for notebook, functions in EXERCISES.items() for function in functions]


def cells(notebook: str) -> list[nbformat.NotebookNode]:
    path: Path = ROOT / "notebooks" / f"{notebook}.ipynb"
    return nbformat.read(path, as_version=4).cells


def stub(notebook: str, function: str) -> str:
    return next(c.source for c in cells(notebook) if c.cell_type == "code" and c.source.startswith(f"def {function}("))


def solution(notebook: str, function: str) -> str:
    """The Python block of the folded <details> that defines `function`."""
    folded = [c.source for c in cells(notebook) if c.cell_type == "markdown" and c.source.startswith("<details>")]
    blocks = [block for text in folded for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    return next(block for block in blocks if re.search(rf"^def {function}\(", block, re.MULTILINE))


def defined(notebook: str, source: str, function: str):
    """`function` as `source` defines it, with the names that the notebook's import cell gives."""
    imports = next(c.source for c in cells(notebook) if c.cell_type == "code")
    namespace: dict = {}
    exec(imports, namespace)
    exec(source, namespace)
    return namespace[function]


@pytest.mark.parametrize(("notebook", "function"), CASES)
def test_the_solution_passes(notebook, function, capsys):
    EXERCISES[notebook][function](defined(notebook, solution(notebook, function), function))
    assert capsys.readouterr().out == "ok\n"


@pytest.mark.parametrize(("notebook", "function"), CASES)
def test_the_stub_is_not_attempted_yet(notebook, function, capsys):
    EXERCISES[notebook][function](defined(notebook, stub(notebook, function), function))
    assert capsys.readouterr().out == "not attempted yet\n"


@pytest.mark.parametrize(("notebook", "function"), CASES)
def test_the_solution_is_folded_and_the_signature_is_the_stubs(notebook, function):
    assert solution(notebook, function).find(stub(notebook, function).splitlines()[0]) >= 0
    checker = EXERCISES[notebook][function].__name__
    assert any(c.cell_type == "code" and c.source == f"checks.{checker}({function})" for c in cells(notebook))


@pytest.mark.parametrize("notebook", EXERCISES)
def test_every_checker_of_the_notebook_has_an_exercise(notebook):
    used = {name for c in cells(notebook) if c.cell_type == "code" for name in re.findall(r"checks\.(check_\w+)\(", c.source)}
    assert used == {checker.__name__ for checker in EXERCISES[notebook].values()}


def said(checker, function, capsys) -> str:
    checker(function)
    return capsys.readouterr().out


def test_a_tool_without_the_optional_argument(capsys):
    class CancelSubscription(Tool):
        """Cancel a subscription."""

        subscription_id: str

    assert said(checks.check_cancel_subscription, lambda: CancelSubscription, capsys) == (
        "its line in the system message\n"
        "  expected: 'cancel_subscription(subscription_id: str, immediately?: bool)'\n"
        "  got:      'cancel_subscription(subscription_id: str)'\n"
    )


def test_a_tool_whose_optional_argument_takes_null(capsys):
    class CancelSubscription(Tool):
        """Cancel a subscription."""

        subscription_id: str
        immediately: bool | None = None

    assert said(checks.check_cancel_subscription, lambda: CancelSubscription, capsys) == (
        'parsing the arguments {"subscription_id":"SUB-7","immediately":null}\n'
        "  expected: 'an invalid output'\n"
        "  got:      'a legal call'\n"
    )


def test_something_that_is_no_tool(capsys):
    assert "expected: 'a subclass of Tool'\n  got:      'None'" in said(checks.check_cancel_subscription, lambda: None, capsys)


def test_a_reply_that_refunds_at_once(capsys):
    def reply(decision):
        return f"Calling {decision.tool}."

    out = said(checks.check_reply, reply, capsys)
    assert "expected: 'Shall I refund A-12?'" in out
    assert "got:      'Calling request_refund.'" in out


def test_a_reply_that_raises(capsys):
    def reply(decision):
        return f"Shall I refund {decision.arguments['order_id']}?" if decision.tool != "track_order" else {}["nothing"]

    assert said(checks.check_reply, reply, capsys) == (
        "after: reply(ToolCall(tool='request_refund', arguments={'order_id': 'A-12', 'reason': 'it hums'}))\n"
        "  expected: no exception\n"
        "  got:      KeyError: 'nothing'\n"
    )


def my_negatives() -> list[dict]:
    return defined("02_negative_examples", solution("02_negative_examples", "my_negatives"), "my_negatives")()


def test_a_kind_left_out(capsys):
    out = said(checks.check_my_negatives, lambda: my_negatives()[1:], capsys)
    assert out.startswith("kinds of the rows, sorted\n  expected: ['ambiguous', 'chitchat',")


@pytest.mark.parametrize(
    ("target", "expected", "got"),
    [
        ({"tool": "no_tool", "reason": "it is rude"}, "not asked for now", "it is rude"),
        ({"tool": "escalate", "arguments": {"reason": "x"}}, "no_tool", "escalate"),
    ],
)
def test_a_wrong_label(target, expected, got, capsys):
    rows = [{**row, "target": target} if row["kind"] == "negated" else row for row in my_negatives()]
    assert f"expected: {expected!r}\n  got:      {got!r}" in said(checks.check_my_negatives, lambda: rows, capsys)


def test_a_row_that_is_no_example(capsys):
    rows = [{key: value for key, value in row.items() if key != "request"} for row in my_negatives()]
    assert "got:      ValidationError" in said(checks.check_my_negatives, lambda: rows, capsys)


def test_a_negative_copied_from_train(capsys):
    copied = next(row.request for row in load_examples("train") if not row.is_call)
    rows = [{**row, "request": copied} if row["kind"] == "steering" else row for row in my_negatives()]
    assert "same frame" in said(checks.check_my_negatives, lambda: rows, capsys)


def test_a_predicate_that_ignores_case(capsys):
    def invented_arguments(example):
        arguments = getattr(example.target, "arguments", {})
        return sorted(name for name, value in arguments.items() if value.lower() not in example.request.lower())

    out = said(checks.check_invented_arguments, invented_arguments, capsys)
    assert out.startswith("request 'Where is a-12?'")
    assert "expected: ['order_id']\n  got:      []" in out


def test_the_checkers_need_no_model():
    code = "import sys, helpers.checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
