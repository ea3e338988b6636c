"""The audit of a data set, on a clean one and on that one made bad in each way by hand, and on the course's own data."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.audits import SEVERITY, AuditReport, Finding, audit
from helpers.examples import Example, audit_leakage, load_examples
from helpers.negatives import KINDS
from helpers.tools import Toolset, support_desk


def row(id, request, target, kind):
    return Example.model_validate({"id": id, "request": request, "target": target, "kind": kind})


def track(id, request, order_id, accept=()):
    return row(id, request, {"tool": "track_order", "arguments": {"order_id": order_id}, "accept": list(accept)}, "direct")


def refund(id, request, order_id, reason):
    return row(id, request, {"tool": "request_refund", "arguments": {"order_id": order_id, "reason": reason}}, "direct")


def refuse(id, request, kind="chitchat", reason="small talk"):
    return row(id, request, {"tool": "no_tool", "reason": reason}, kind)


def noise(name, length=48):
    """Letters and digits that share no stretch of five with those of another name."""
    return hashlib.sha256(name.encode()).hexdigest()[:length]


def clean(split, calls):
    """Calls and a negative of each kind, no two alike, of 32 to 62 characters and a few."""
    noises = [noise(f"{split}-{n}", 32 + 5 * (n % 7)) for n in range(calls + 7)]
    rows = [track(f"{split}-{n}", f"{noises[n]} K-{n:04}", f"K-{n:04}") for n in range(calls)]
    return rows + [refuse(f"{split}-{kind}", f"{rest} thanks", kind) for kind, rest in zip(KINDS, noises[calls:], strict=True)]


CLEAN = {"train": clean("train", 42), "validation": clean("validation", 3), "test": clean("test", 3)}


def with_rows(**added):
    """The clean data with rows added to its splits."""
    return {split: [*rows, *added.get(split, ())] for split, rows in CLEAN.items()}


def found(splits, **options):
    """Kind, splits and rows of every finding."""
    return [(finding.kind, finding.splits, finding.rows) for finding in audit(splits, **options).findings]


# --- nothing to find --------------------------------------------------------------------------------------------------


def test_a_clean_set_has_no_findings():
    report = audit(CLEAN)
    assert report.findings == report.errors == ()
    assert report.ok
    report.check()
    assert report.counts() == dict.fromkeys(SEVERITY, 0)


def test_the_courses_own_splits_have_no_errors():
    report = audit({split: load_examples(split) for split in ("train", "validation", "test")})
    report.check()
    assert report.counts()["no_tool share"] == report.counts()["missing kind"] == report.counts()["rare kind"] == 0


@pytest.mark.parametrize("splits", [{}, {"train": CLEAN["train"], "test": []}])
def test_splits_without_rows_are_refused(splits):
    with pytest.raises(ValueError, match="needs splits with rows in each"):
        audit(splits)


@pytest.mark.parametrize("near", [0, -0.1, 1.01, float("nan")])
def test_a_similarity_that_is_none_is_refused(near):
    with pytest.raises(ValueError, match="near is a similarity above 0 and at most 1, got"):
        audit(CLEAN, near=near)


# --- duplicates -------------------------------------------------------------------------------------------------------


def test_the_same_request_in_two_splits_is_an_error_whatever_its_case_and_white_space():
    splits = with_rows(
        train=[refuse("a", "Good morning to all of you, shop and staff")],
        test=[refuse("b", "good  MORNING to all of you,\nshop and staff")],
    )
    (finding,) = audit(splits).findings
    text = "2 rows of 2 splits say 'good morning to all of you, shop and staff'"
    assert finding == Finding("duplicate across splits", ("train", "test"), ("a", "b"), text)
    assert finding.severity == "error"


def test_the_same_request_twice_in_a_split_is_a_warning():
    rows = [refuse(id, "Good morning to all of you, shop and staff") for id in ("a", "b", "c")]
    (finding,) = audit(with_rows(train=rows)).findings
    assert (finding.kind, finding.splits, finding.rows) == ("duplicate within a split", ("train",), ("a", "b", "c"))
    assert finding.text == "3 rows say 'good morning to all of you, shop and staff'"
    assert finding.severity == "warning"


def test_a_request_thrice_in_two_splits_is_both():
    rows = [refuse(id, "Good morning to all of you, shop and staff") for id in ("a", "b", "c")]
    assert found(with_rows(train=rows[:2], test=rows[2:])) == [
        ("duplicate across splits", ("train", "test"), ("a", "b", "c")),
        ("duplicate within a split", ("train",), ("a", "b")),
    ]


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_an_exact_copy_of_any_row_in_another_split_is_found(data):
    source, target = data.draw(st.permutations(list(CLEAN)))[:2]
    copied = data.draw(st.sampled_from(CLEAN[source]))
    place = data.draw(st.integers(0, len(CLEAN[target])))
    splits = CLEAN | {target: [*CLEAN[target][:place], copied, *CLEAN[target][place:]]}
    errors = [(finding.kind, set(finding.splits), finding.rows) for finding in audit(splits).errors]
    assert errors == [("duplicate across splits", {source, target}, (copied.id, copied.id))]


# --- near duplicates --------------------------------------------------------------------------------------------------

MORNING = "Good morning to all of you, shop and staff"


def test_a_near_duplicate_in_another_split_is_an_error_that_shows_both():
    splits = with_rows(train=[refuse("a", MORNING)], validation=[refuse("b", "So good morning to all of you, shop and staff!")])
    (finding,) = audit(splits).findings
    assert (finding.kind, finding.splits, finding.rows) == ("near duplicate across splits", ("train", "validation"), ("a", "b"))
    assert finding.text == "alike by 0.93: 'Good morning to all of you, …', 'So good morning to all of yo…'"
    assert finding.severity == "error"


def test_arguments_do_not_tell_requests_apart():
    near = [
        track("a", "where in the world is the parcel A-17 please", "A-17"),
        track("b", "where in the world is the parcel BB/2209/X please", "BB/2209/X"),
    ]
    assert found(with_rows(train=near[:1], test=near[1:])) == [("near duplicate across splits", ("train", "test"), ("a", "b"))]


def test_a_row_is_named_once_with_every_earlier_row_that_it_is_near_to():
    splits = with_rows(
        train=[refuse("a", f"{MORNING} a"), refuse("b", f"{MORNING} bb")],
        validation=[refuse("c", f"{MORNING} ccc")],
        test=[refuse("d", f"{MORNING} dddd")],
    )
    assert found(splits) == [
        ("near duplicate across splits", ("train", "validation"), ("a", "b", "c")),
        ("near duplicate across splits", ("train", "validation", "test"), ("a", "b", "c", "d")),
        ("near duplicate in train", ("train",), ("a", "b")),
    ]


def test_near_duplicates_are_looked_for_in_train_and_not_within_the_other_splits():
    pair = [refuse("a", f"{MORNING} a"), refuse("b", f"{MORNING} bb")]
    (finding,) = audit(with_rows(train=pair)).findings
    assert (finding.kind, finding.severity, finding.rows) == ("near duplicate in train", "warning", ("a", "b"))
    assert found(with_rows(test=pair)) == []


@pytest.mark.parametrize(("near", "kinds"), [(4 / 6, ["near duplicate across splits"]), (0.67, [])])
def test_near_is_the_jaccard_similarity_of_five_letter_pieces(near, kinds):
    rows = refuse("a", "abcdefgh"), refuse("x", "abcdefghij")  # pieces: 4 and 6, of which 4 are shared: 4/6
    report = audit(with_rows(train=rows[:1], test=rows[1:]), near=near)
    assert [finding.kind for finding in report.findings if "duplicate" in finding.kind] == kinds


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text("ab ", min_size=1, max_size=12), min_size=2, max_size=12), st.sampled_from([0.3, 0.5, 0.6, 1.0]))
def test_near_duplicates_across_splits_are_those_of_the_leakage_audit(requests, near):
    rows = [refuse(f"{n:02}", request) for n, request in enumerate(requests)]
    splits = {"train": rows[::2], "test": rows[1::2]}
    mine = {(a, f.rows[-1]) for f in audit(splits, near=near).errors if f.kind.startswith("near") for a in f.rows[:-1]}
    plain = {r.id: " ".join(r.request.lower().split()) for r in rows}
    theirs = {f.rows for f in audit_leakage(splits["train"], splits["test"], near) if f.audit == "near-duplicate"}
    assert mine == {(a, b) for a, b in theirs if plain[a] != plain[b]}


# --- labels -----------------------------------------------------------------------------------------------------------


def errors(*rows, toolset=None):
    """Kind, rows and text of the errors in the clean training set with some rows more."""
    return [(finding.kind, finding.rows, finding.text) for finding in audit(with_rows(train=rows), toolset).errors]


def test_one_request_with_two_targets_is_a_conflict_within_a_split_and_across():
    here, there = track("a", "please tell me where is A-17", "A-17"), refuse("b", "Please tell me: where is A-17?")
    conflict = ("label conflict", ("a", "b"), "'please tell me where is A-17' is labelled track_order and no_tool")
    assert errors(here, there) == [conflict]
    across = [finding for finding in audit(with_rows(train=[here], test=[there])).errors if finding.kind == "label conflict"]
    assert [(finding.splits, finding.rows) for finding in across] == [(("train", "test"), ("a", "b"))]


def test_one_tool_with_other_arguments_is_a_conflict_when_all_of_them_are_in_the_request():
    request = "refund B-2, my lamp came torn"
    assert errors(refund("a", request, "B-2", "my lamp came torn"), refund("b", request, "B-2", "came torn")) == [
        ("label conflict", ("a", "b"), '\'refund B-2, my lamp…\' is labelled {"reason": "my lamp… and {"reason": "came to…')
    ]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (track("a", "where is my parcel A-17", "A-17"), track("b", "where is my parcel A-18", "A-18")),
        (track("a", "where is my parcel A-17", "A-17"), track("b", "where is my parcel a-17", "a-17")),
        (track("a", "where is my parcel A-17", "A-17"), track("b", "where is my parcel A 17", "A 17")),
        (track("a", "where is my parcel A-17", "A-17"), refuse("b", "where is my parcel")),
        (refuse("a", "where is my parcel"), track("b", "where is my parcel A-17", "A-17")),
        (refuse("a", MORNING), refuse("b", MORNING, reason="hello")),
        (
            track("a", "where is my parcel A-17", "A-17", [{"tool": "no_tool", "reason": "unclear"}]),
            row(
                "b",
                "where is my parcel A-17",
                {"tool": "no_tool", "reason": "x", "accept": [{"tool": "track_order", "arguments": {"order_id": "A-17"}}]},
                "negated",
            ),
        ),
    ],
    ids=["other id", "other case", "other spelling", "left out", "left out first", "other words of refusal", "accepted"],
)
def test_targets_that_the_words_explain_or_that_accept_each_other_are_no_conflict(left, right):
    counts = audit(with_rows(train=[left, right])).counts()
    assert counts["label conflict"] == counts["possible label conflict"] == 0


def test_acceptance_by_one_side_alone_is_a_conflict():
    accept = [{"tool": "no_tool", "reason": "unclear"}]
    rows = [track("a", "where is my parcel A-17", "A-17", accept), refuse("b", "where is my parcel A-17")]
    assert [kind for kind, _, _ in errors(*rows)] == ["label conflict"]


def test_alike_requests_with_two_targets_are_a_warning_since_they_may_be_a_contrast():
    rows = [track("a", "hello, tell me where is the parcel A-17", "A-17"), refuse("b", "hello, do not tell me where is the parcel A-17")]
    (finding,) = [finding for finding in audit(with_rows(train=rows)).findings if "label" in finding.kind]
    assert (finding.kind, finding.severity, finding.rows) == ("possible label conflict", "warning", ("a", "b"))
    assert finding.text == "targets differ, alike by 0.70: 'hello, tell me where…', 'hello, do not tell m…'"


def test_requests_without_a_word_are_not_all_the_same():
    rows = [refuse("a", "👍"), track("b", "👎", "👎"), track("c", "?!", "?!")]
    assert errors(*rows) == []


def test_an_argument_that_is_not_in_the_request_is_an_error_once_a_row():
    accept = [{"tool": "track_order", "arguments": {"order_id": "A-17"}}]
    rows = [track("a", "now where would a-17 be", "A-17", accept), refund("b", "money back, it broke", "B-2", "broken")]
    assert errors(*rows) == [
        ("argument not in request", ("a",), "order_id='A-17' is not in 'now where would a-17 be'"),
        ("argument not in request", ("b",), "order_id='B-2' is not in 'money back, it broke'"),
        ("argument not in request", ("b",), "reason='broken' is not in 'money back, it broke'"),
    ]


def test_a_tool_that_the_catalogue_lacks_is_an_error_in_accepted_answers_too():
    accept = [{"tool": "cancel_order", "arguments": {"order_id": "A-17"}}]
    assert errors(track("a", "now where would A-17 be", "A-17", accept)) == [
        ("unknown tool", ("a",), "no tool is called cancel_order: 'now where would A-17 be'")
    ]


def test_the_catalogue_is_the_one_given():
    only_refunds = Toolset.from_specs([support_desk()["request_refund"]])
    report = audit({"train": CLEAN["train"][:2]}, only_refunds)
    assert [(finding.kind, finding.rows) for finding in report.errors] == [("unknown tool", ("train-0",)), ("unknown tool", ("train-1",))]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ({"tool": "track_order", "arguments": {}}, "arguments: 'order_id' is a required property: 'where is A-17 now'"),
        ({"tool": "track_order", "arguments": {"order_id": 17}}, "arguments['order_id']: 17 is not of type 'string': 'where is A-17 now'"),
        ({"tool": "no_tool", "reason": "  "}, "reason must be a string of 1 to 10000 characters that says…: 'where is A-17 now'"),
    ],
)
def test_a_target_that_the_schema_refuses_is_an_error(target, text):
    assert errors(row("a", "where is A-17 now", target, "direct")) == [("target breaks schema", ("a",), text)]


# --- shares and lengths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "text"), [(27, "20.6% of the rows are no_tool, not 10% to 20%"), (64, "9.9% of the rows are no_tool, not 10% to 20%")]
)
def test_a_share_of_no_tool_outside_the_band_is_a_warning_in_train_alone(calls, text):
    rows = clean("train", calls)
    (finding,) = audit({"train": rows}).findings
    assert finding == Finding("no_tool share", ("train",), tuple(sorted(f"train-{kind}" for kind in KINDS)), text)
    assert finding.severity == "warning"
    assert found({"test": rows}) == []


@pytest.mark.parametrize("calls", [28, 63])
def test_both_ends_of_the_band_are_in_it(calls):
    assert found({"train": clean("train", calls)}) == []


def test_a_kind_that_a_split_lacks_is_a_warning_without_rows():
    splits = CLEAN | {"test": [row for row in CLEAN["test"] if row.kind != "steering"]}
    (finding,) = audit(splits).findings
    assert finding == Finding("missing kind", ("test",), (), "no row is of the kind steering")
    assert finding.severity == "warning"


@pytest.mark.parametrize(("others", "kinds"), [(19, []), (20, ["rare kind"])])
def test_a_kind_below_a_twentieth_of_the_negatives_is_a_warning_that_names_its_rows(others, kinds):
    common = [kind for kind in KINDS if kind != "steering"]
    rows = [refuse(f"n-{n}", noise(f"n-{n}"), common[n % 6]) for n in range(others)] + [refuse("lone", noise("lone"), "steering")]
    findings = audit({"test": rows}).findings
    assert [(finding.kind, finding.rows) for finding in findings] == [(kind, ("lone",)) for kind in kinds]
    assert [finding.text for finding in findings] == ["1 of 21 negatives are of the kind steering" for _ in kinds]


@pytest.mark.parametrize(
    ("lengths", "text"),
    [
        # logs to base 2 of 3, 5, 5, 6: quartiles 4.5 and 5.25, fences 3.375 and 6.375
        ((8, 32, 32, 64), "8 characters, not 10 to 83: 'aaaaaaaa'"),
        # logs to base 2 of 7, 5, 5, 4: quartiles 4.75 and 5.5, fences 3.625 and 6.625
        ((128, 32, 32, 16), f"128 characters, not 12 to 99: '{'a' * 47}…'"),
    ],
)
def test_a_length_beyond_tukeys_fences_is_a_warning(lengths, text):
    rows = [refuse(letter, letter * n) for letter, n in zip("abcd", lengths, strict=True)]
    findings = [finding for finding in audit({"test": rows}).findings if finding.kind == "length outlier"]
    assert findings == [Finding("length outlier", ("test",), ("a",), text)]
    assert findings[0].severity == "warning"


def test_a_request_of_white_space_is_a_warning_and_no_length():
    (finding,) = audit(with_rows(train=[refuse("a", " \n ")])).findings
    assert finding == Finding("empty request", ("train",), ("a",), "the request holds only white space")
    assert finding.severity == "warning"


# --- the report -------------------------------------------------------------------------------------------------------

BAD = with_rows(
    train=[
        *(refuse(f"m-{n}", f"{MORNING} {'x' * n}") for n in range(9)),
        track("t-1", "please tell me where is A-17", "A-17"),
        refuse("t-2", "Please tell me: where is A-17?"),
        track("t-3", "now where would a-17 be", "A-17"),
        row("t-4", "now | cancel B-2 `at once`", {"tool": "cancel", "arguments": {}}, "direct"),
    ],
    test=[refuse("t-5", MORNING), refuse("t-6", f"{MORNING}, good morning")],
)


@settings(deadline=None, max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rng):
    assert audit({split: rng.sample(rows, len(rows)) for split, rows in BAD.items()}) == audit(BAD)


def test_every_row_that_is_named_exists_and_every_sentence_is_short():
    ids = {row.id for rows in BAD.values() for row in rows}
    for finding in audit(BAD).findings:
        assert set(finding.rows) <= ids and finding.splits
        assert 10 < len(finding.text) <= 80


def test_errors_come_first_and_are_counted():
    report = audit(BAD)
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities)
    assert len(report.errors) == severities.count("error") > 0
    assert not report.ok
    assert {kind: n for kind, n in report.counts().items() if n and SEVERITY[kind] == "error"} == {
        "duplicate across splits": 1,
        "near duplicate across splits": 2,
        "label conflict": 1,
        "argument not in request": 1,
        "unknown tool": 1,
    }


def test_the_report_counts_every_kind_and_shows_five_findings_of_each():
    findings = [Finding("rare kind", ("train",), tuple("abcdefg"), f"text {n}") for n in range(7)]
    lines = str(AuditReport((Finding("missing kind", ("test",), (), "none"), *findings))).split("\n")
    assert lines[0] == "errors: 0, warnings: 8"
    assert lines[1] == "error    duplicate across splits           0"
    rare = lines.index("warning  rare kind                         7")
    assert lines[rare - 1] == "    no row (test): none"
    assert lines[rare + 1 : rare + 8] == [
        *(f"    a, b, c, d, e and 2 more (train): text {n}" for n in range(5)),
        "    … and 2 more",
        "warning  length outlier                    0",
    ]
    assert len(lines) == 1 + len(SEVERITY) + 1 + 5 + 1


def test_the_markdown_has_the_counts_in_a_table_and_the_requests_in_a_fence():
    table, _, rest = audit(BAD)._repr_markdown_().partition("\n\n```text\n")
    assert table.split("\n")[:4] == [
        "| severity | kind | findings |",
        "| --- | --- | --- |",
        "| error | duplicate across splits | 1 |",
        "| error | near duplicate across splits | 2 |",
    ]
    assert len(table.split("\n")) == 2 + len(SEVERITY)
    fenced, _, shares = rest.partition("\n```\n")
    assert "now | cancel B-2 `at once`" in fenced and shares.count(" rows: call ") == len(BAD)
    assert "```" not in AuditReport(())._repr_markdown_()


def test_the_report_ends_with_the_share_of_each_kind_in_each_split():
    rows = [*(track(id, f"where is {id}", id) for id in ("A-1", "B-2", "C-3")), refuse("d", "lovely weather")]
    assert str(audit({"train": rows})).splitlines()[-1].startswith("train, 4 rows: call 75.0%, chitchat 25.0%, information_request 0.0%")


def test_check_raises_with_the_errors_and_leaves_the_warnings_out():
    with pytest.raises(AssertionError) as caught:
        audit(BAD).check()
    said = str(caught.value)
    assert said.startswith("the data need mending before any training:\nerror    duplicate across splits")
    assert "    t-4 (train): no tool is called cancel: 'now | cancel B-2 `at once`'" in said
    assert "warning" not in said
    AuditReport((Finding("rare kind", ("train",), ("a",), "text"),)).check()
