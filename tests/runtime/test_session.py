import itertools

from hypothesis import given
from hypothesis import strategies as st

from glm_runtime import GenerationSettings, Model, SamplingSettings
from glm_runtime.session import count_shared

SETTINGS = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=12)


def tokens_of(pieces) -> list[int]:
    return [piece.token_id for piece in pieces]


def fresh(model: Model, ids: list[int]) -> list[int]:
    return tokens_of(model.generate(ids, SETTINGS))


def test_a_second_turn_over_the_cache_equals_a_fresh_start(tiny_model: Model):
    session = tiny_model.new_session()
    first = tiny_model.tokenizer.encode("床前明月光")
    answer = tokens_of(session.generate(first, SETTINGS))
    second = [*first, *answer, *tiny_model.tokenizer.encode("疑是地上霜")]
    assert tokens_of(session.generate(second, SETTINGS)) == fresh(tiny_model, second)


def test_only_what_is_new_is_read(tiny_model: Model):
    session = tiny_model.new_session()
    ids = tiny_model.tokenizer.encode("In the beginning God created the heaven")
    list(session.generate(ids, SETTINGS))
    read: list[int] = []
    append = session._decoder.append

    def count(tokens, num_logits=1):
        read.append(len(tokens))
        return append(tokens, num_logits)

    session._decoder.append = count
    next(session.generate([*ids, 7, 8], SETTINGS))
    assert read == [2]


def test_the_same_prompt_again_reads_its_last_token_only(tiny_model: Model):
    session = tiny_model.new_session()
    ids = tiny_model.tokenizer.encode("白日依山尽")
    assert tokens_of(session.generate(ids, SETTINGS)) == tokens_of(session.generate(ids, SETTINGS))


def test_a_prompt_that_departs_early_equals_a_fresh_start(tiny_model: Model):
    session = tiny_model.new_session()
    list(session.generate([5, 6, 7, 8, 9, 10, 11], SETTINGS))
    for ids in ([5, 6, 200, 8], [5, 6], [44, 6, 7], [44]):
        assert tokens_of(session.generate(ids, SETTINGS)) == fresh(tiny_model, ids)


def test_an_answer_left_half_way_does_not_spoil_the_next(tiny_model: Model):
    session = tiny_model.new_session()
    ids = [5, 6, 7, 8]
    half = session.generate(ids, SETTINGS)
    begun = tokens_of(itertools.islice(half, 4))
    longer = [*ids, *begun[:2], 99, 98]
    assert tokens_of(session.generate(longer, SETTINGS)) == fresh(tiny_model, longer)
    assert list(half) == []  # the old answer has ended; it writes no more into the cache


def test_reset_forgets_everything(tiny_model: Model):
    session = tiny_model.new_session()
    list(session.generate([5, 6, 7], SETTINGS))
    session.reset()
    assert session._decoder.length == 0
    assert tokens_of(session.generate([5, 6, 7], SETTINGS)) == fresh(tiny_model, [5, 6, 7])


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_count_shared_is_the_longest_common_beginning(left: list[int], right: list[int]):
    count = count_shared(left, right)
    assert left[:count] == right[:count]
    assert left[: count + 1] != right[: count + 1] or count == min(len(left), len(right))
