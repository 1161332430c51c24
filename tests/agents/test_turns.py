"""What the loop does after an answer."""

from glm_agents.limits import AgentLimits
from glm_agents.turns import Step, Turns
from glm_runtime import ToolCall

CALL = ToolCall("search", "{}")
FINISH = ToolCall("finish", "{}")


def test_an_answer_without_calls_stands() -> None:
    assert Turns(AgentLimits()).plan(()).step is Step.END


def test_after_the_last_turn_the_model_must_answer() -> None:
    turns = Turns(AgentLimits(max_turns=2))
    assert [turns.plan([CALL]).step for _ in range(2)] == [Step.RUN, Step.RUN]
    plan = turns.plan([CALL])
    assert plan.step is Step.REPORT
    assert "the limit of 2 turns is reached; answer now" in plan.result
    assert turns.plan(()).step is Step.END


def test_calls_of_the_last_answer_are_not_run() -> None:
    turns = Turns(AgentLimits(max_turns=1))
    turns.plan([CALL])
    turns.plan([CALL])
    plan = turns.plan([CALL])
    assert (plan.step, plan.note) == (Step.END, "the calls of the last answer were not run.")


def test_seconds_are_counted_over_all_calls() -> None:
    turns = Turns(AgentLimits(total_seconds=10))
    turns.spend(4)
    assert turns.seconds_left == 6
    assert turns.plan([CALL]).step is Step.RUN
    turns.spend(7)
    assert turns.seconds_left == 0
    assert "the limit of 10 seconds" in turns.plan([CALL]).note


def test_finish_leads_to_the_report() -> None:
    turns = Turns(AgentLimits(), finishing=["finish"])
    assert turns.plan([CALL]).step is Step.RUN
    plan = turns.plan([FINISH])
    assert (plan.step, plan.result, plan.note) == (Step.REPORT, "", "")
    assert turns.plan([FINISH]).step is Step.END


def test_finish_is_a_tool_as_others_are_in_other_models() -> None:
    assert Turns(AgentLimits()).plan([FINISH]).step is Step.RUN
