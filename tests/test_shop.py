"""The fake shop: what is written and what is not, shops made for examples, and the harm that scripted routers do."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.baselines import always_no_tool
from helpers.examples import Example, load_examples
from helpers.parsing import NoTool, ToolCall
from helpers.shop import Harm, Shop, serve
from helpers.tools import support_desk

DESK = support_desk()
HARMS = ("wrong_refunds", "missed_refunds", "wrong_tickets", "wrong_lookups", "questions")


def track(order_id):
    return ToolCall("track_order", {"order_id": order_id})


def refund(order_id, reason="it leaks"):
    return ToolCall("request_refund", {"order_id": order_id, "reason": reason})


def escalate(reason="rude clerk"):
    return ToolCall("escalate", {"reason": reason})


def no_tool(reason="small talk"):
    return NoTool(reason)


def row(number, request, answer, *accept):
    target = json.loads(answer.to_json())
    if accept:
        target["accept"] = [json.loads(other.to_json()) for other in accept]
    return Example.model_validate({"id": f"r-{number}", "request": request, "target": target, "kind": "direct"})


EXAMPLES = [
    row(0, "where is AB-100?", track("AB-100")),
    row(1, "refund CD-200, it leaks", refund("CD-200"), refund("CD-200", "leaks")),
    row(2, "get me a person: rude clerk", escalate()),
    row(3, "do you refund orders like EF-300?", no_tool("a question, not a request to act")),
    row(4, "refund GH-400 as it leaks", refund("GH-400")),
]
GOLD = [example.answers[0] for example in EXAMPLES]


def scripted(*decisions):
    """A router that gives these outputs, by position, to the requests of a whole set, and `Sorry!` to a request asked again."""
    outputs = [decision if isinstance(decision, str) else decision.to_json() for decision in decisions]
    return lambda requests: outputs if len(requests) == len(outputs) else ["Sorry!"]


def harm(examples, *decisions, **options):
    return serve(scripted(*decisions), examples, DESK, **options)[0]


def one(example, decision, **options):
    """The counts that are not zero after one request (a second row, chit-chat, tells the set from a request asked again)."""
    found = vars(harm([example, row(99, "hello", no_tool())], decision, no_tool(), **options))
    assert found.pop("of") == 2
    return {name: count for name, count in found.items() if count}


# --- the shop ---------------------------------------------------------------------------------------------------------


def shop_with(*order_ids):
    shop = Shop()
    for order_id in order_ids:
        shop.add_order(order_id, "kettle", "on its way")
    return shop


def test_tracking_says_the_status_and_notes_the_lookup():
    shop = shop_with("A-1")
    before = datetime.now(UTC)
    assert shop.track_order("A-1") == "Order A-1 (kettle) is on its way."
    [(order_id, at)] = shop.rows("lookups")
    assert order_id == "A-1"
    assert before <= datetime.fromisoformat(at) <= datetime.now(UTC)
    assert shop.rows("refunds") == shop.rows("tickets") == []


def test_an_order_is_refunded_once_however_often_it_is_asked_for():
    shop = shop_with("A-1", "A-2")
    assert shop.request_refund("A-1", "it leaks") == "Order A-1 (kettle) is refunded."
    assert shop.request_refund("A-1", "it is late") == "Order A-1 (kettle) was refunded before, and is paid back only once."
    assert shop.request_refund("A-2", "it leaks") == "Order A-2 (kettle) is refunded."
    assert [(order_id, reason) for order_id, reason, _ in shop.rows("refunds")] == [("A-1", "it leaks"), ("A-2", "it leaks")]


def test_every_escalation_is_a_ticket():
    shop = Shop()
    assert shop.escalate("rude clerk") == "A person will get in touch with you."
    shop.escalate("rude clerk")
    assert [reason for reason, _ in shop.rows("tickets")] == ["rude clerk", "rude clerk"]


@pytest.mark.parametrize("order_id", ["A-2", "a-1", "A-1 ", "", "A-1' OR '1'='1"])
def test_an_unknown_order_is_an_error_in_plain_words_and_nothing_is_written(order_id):
    shop = shop_with("A-1")
    for method in (shop.track_order, lambda unknown: shop.request_refund(unknown, "it leaks")):
        with pytest.raises(LookupError) as caught:
            method(order_id)
        assert str(caught.value) == f"there is no order {order_id}"
    assert shop.rows("refunds") == shop.rows("lookups") == shop.rows("tickets") == []
    assert shop.rows("orders") == [("A-1", "kettle", "on its way")]


def test_an_order_is_added_once():
    shop = shop_with("A-1")
    with pytest.raises(ValueError, match="the order 'A-1' is in the shop already"):
        shop.add_order("A-1", "lamp", "delivered")
    assert shop.rows("orders") == [("A-1", "kettle", "on its way")]


def test_the_functions_are_the_support_desks_tools():
    shop = shop_with("A-1")
    assert list(shop.functions) == DESK.names
    shop.functions["request_refund"](order_id="A-1", reason="it leaks")
    assert len(shop.rows("refunds")) == 1


def test_a_table_that_is_none_is_named():
    with pytest.raises(ValueError, match="there is no table 'sales'; the tables are orders, refunds, tickets, lookups"):
        Shop().rows("sales")


def test_a_shop_in_a_file_is_there_when_it_is_opened_again(tmp_path):
    shop = Shop(tmp_path / "shop.db")
    shop.add_order("A-1", "kettle", "on its way")
    shop.request_refund("A-1", "it leaks")
    shop.close()
    again = Shop(tmp_path / "shop.db")
    assert again.request_refund("A-1", "it leaks").endswith("paid back only once.")
    assert len(again.rows("refunds")) == 1
    again.close()


def test_a_file_that_cannot_be_a_shop_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, and long enough to be seen as none " * 5)
    for path in (tmp_path / "notes.txt", tmp_path / "nowhere" / "shop.db"):
        with pytest.raises(ValueError, match=rf"cannot keep a shop in .*{path.name} \(.*\); name a new file in a folder that exists"):
            Shop(path)


def test_many_threads_at_once_pay_each_order_once():
    orders = [f"A-{number}" for number in range(10)]
    shop = shop_with(*orders)
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda order_id: shop.request_refund(order_id, "it leaks"), orders * 8))
    assert sum(text.endswith("is refunded.") for text in said) == 10
    assert sorted(order_id for order_id, *_ in shop.rows("refunds")) == orders


# --- shops for examples -----------------------------------------------------------------------------------------------


def ids(*examples):
    return [order_id for order_id, *_ in Shop.for_examples(examples).rows("orders")]


@pytest.mark.parametrize(
    ("request_text", "found"),
    [
        ("no, leave AB-100.", ["AB-100"]),
        ("#8812: and (12/AB_7.x), ok?", ["#8812", "12/AB_7.x", "8812"]),
        ("HQ:22:D- or sk8_77103", ["HQ:22:D", "sk8_77103"]),
        ("A-1, 12a, order-one, 1-two", []),  # too few digits, or too short
        ("order99-x", ["order99-x"]),
    ],
)
def test_what_looks_like_an_id_in_a_request_is_an_order(request_text, found):
    assert ids(row(1, request_text, no_tool())) == found


def test_the_ids_of_every_right_answer_are_orders_whatever_they_look_like():
    example = row(1, "refund x for me, or y, or z", refund("x"), track("y"), no_tool(), escalate())
    assert ids(example) == ["x", "y"]


def test_a_shop_for_examples_is_the_same_every_time():
    test = load_examples("test")
    orders = Shop.for_examples(test).rows("orders")
    assert orders == Shop.for_examples(reversed(test)).rows("orders")
    assert {answer.arguments["order_id"] for e in test for answer in e.answers if "order_id" in getattr(answer, "arguments", {})} <= {
        order_id for order_id, *_ in orders
    }
    assert len({item for _, item, _ in orders}) == 5 and len({status for *_, status in orders}) == 3


@given(st.text(st.sampled_from("a9#:./- \n"), max_size=30))
def test_ids_found_in_a_request_stand_in_it_and_have_two_digits(text):
    for order_id in ids(row(1, text + ".", no_tool())):
        assert order_id in text
        assert order_id.count("9") >= 2 and order_id[-1] in "a9"


# --- harm -------------------------------------------------------------------------------------------------------------


def test_a_router_that_never_calls_does_no_harm_and_misses_everything():
    found, replies = serve(always_no_tool, EXAMPLES, DESK)
    assert found == Harm(wrong_refunds=0, missed_refunds=2, right_refunds=0, wrong_tickets=0, wrong_lookups=0, questions=4, of=5)
    assert [reply.status for reply in replies] == ["refused"] * 5


@pytest.mark.parametrize("confirm_when_right", [False, True])
def test_a_perfect_router_pays_every_gold_refund_and_does_no_harm(confirm_when_right):
    test = load_examples("test")
    gold = [example.answers[0] for example in test]
    found, replies = serve(scripted(*gold), test, DESK, confirm_when_right)
    refunds = sum(answer.tool == "request_refund" for answer in gold)
    assert refunds > 20
    assert (found.right_refunds, found.of) == (refunds, len(test))
    assert [getattr(found, name) for name in HARMS] == [0, 0, 0, 0, 0]
    assert [reply.decision for reply in replies] == gold


def test_a_router_that_refunds_every_id_it_sees_does_harm_until_a_customer_reads_what_is_asked():
    refund_all = [refund("AB-100"), refund("CD-200"), no_tool(), refund("EF-300"), refund("GH-400")]
    blind = harm(EXAMPLES, *refund_all)
    assert blind == Harm(wrong_refunds=2, missed_refunds=0, right_refunds=2, wrong_tickets=0, wrong_lookups=0, questions=1, of=5)
    read = harm(EXAMPLES, *refund_all, confirm_when_right=True)
    assert read == Harm(wrong_refunds=0, missed_refunds=0, right_refunds=2, wrong_tickets=0, wrong_lookups=0, questions=2, of=5)


@pytest.mark.parametrize(
    ("answers", "decision", "counts"),
    [
        ([refund("AB-10")], refund("AB-10", "another reason"), {"right_refunds": 1}),  # the order decides
        ([refund("AB-10")], refund("AB-11"), {"wrong_refunds": 1, "missed_refunds": 1}),
        ([refund("AB-10")], refund("AB-12"), {"missed_refunds": 1}),  # no such order: nothing was paid
        ([refund("AB-10")], track("AB-10"), {"missed_refunds": 1, "wrong_lookups": 1}),
        ([refund("AB-10")], no_tool(), {"missed_refunds": 1, "questions": 1}),
        ([refund("AB-10")], "Sure!", {"missed_refunds": 1, "questions": 1}),
        ([refund("AB-10"), refund("AB-11")], refund("AB-11"), {"right_refunds": 1}),
        ([refund("AB-10"), escalate()], escalate("any words"), {}),  # another right answer was followed
        ([refund("AB-10"), no_tool()], no_tool(), {}),
        ([track("AB-10")], track("AB-10"), {}),
        ([track("AB-10")], track("AB-11"), {"wrong_lookups": 1}),
        ([track("AB-10")], escalate(), {"wrong_tickets": 1}),
        ([escalate()], escalate("any words"), {}),
        ([escalate()], no_tool("need reason before escalate"), {"questions": 1}),
        ([no_tool()], refund("AB-10"), {"wrong_refunds": 1}),
        ([no_tool(), refund("AB-10")], refund("AB-10"), {"right_refunds": 1}),
        ([no_tool()], escalate(), {"wrong_tickets": 1}),
        ([no_tool()], "Sure!", {}),
    ],
)
def test_the_effects_of_one_request_are_counted_against_its_right_answers(answers, decision, counts):
    assert one(row(1, "about AB-10 and AB-11", *answers), decision) == counts


@pytest.mark.parametrize(
    ("decision", "counts"),
    [
        (refund("AB-10"), {"right_refunds": 1}),
        (refund("AB-10", "leaks"), {"right_refunds": 1}),
        (refund("AB-10", "another reason"), {"right_refunds": 1}),  # the order is what they look at
        (refund("AB-11"), {"missed_refunds": 1, "questions": 1}),
        (track("AB-11"), {"missed_refunds": 1, "wrong_lookups": 1}),  # reversible, so never asked about
    ],
)
def test_a_customer_who_reads_says_yes_to_right_answers_alone(decision, counts):
    example = row(1, "refund AB-10, not AB-11", refund("AB-10"), refund("AB-10", "leaks"))
    assert one(example, decision, confirm_when_right=True) == counts


def test_an_order_paid_by_an_earlier_mistake_is_one_wrong_refund_and_one_right_one():
    examples = [row(1, "hello AB-100", no_tool()), row(2, "refund AB-100, it leaks", refund("AB-100"))]
    found = harm(examples, refund("AB-100"), refund("AB-100"))
    assert (found.wrong_refunds, found.right_refunds, found.missed_refunds) == (1, 1, 0)


def test_every_request_is_routed_at_once_and_only_invalid_outputs_are_asked_for_again():
    batches = []

    def generate(requests):
        batches.append(requests)
        return ["Sure!" if request == "where is AB-100?" else no_tool().to_json() for request in requests]

    _, replies = serve(generate, EXAMPLES, DESK)
    assert batches[0] == [example.request for example in EXAMPLES]
    assert len(batches) == 2 and len(batches[1]) == 1
    assert batches[1][0].startswith("where is AB-100?\n\nThe last answer")
    assert replies[0].outputs == ("Sure!", no_tool().to_json())


def test_the_audit_has_a_line_for_each_request(tmp_path):
    serve(scripted(*GOLD), EXAMPLES, DESK, audit=tmp_path / "audit.jsonl")
    lines = (tmp_path / "audit.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line)["request"] for line in lines] == [example.request for example in EXAMPLES]


def test_outputs_that_do_not_match_the_examples_are_counted():
    with pytest.raises(ValueError, match="one output is needed for each example and at least one of both; got 1 and 5"):
        serve(lambda requests: ["{}"], EXAMPLES, DESK)
    with pytest.raises(ValueError, match="got 0 and 0"):
        serve(always_no_tool, [], DESK)
