"""The decoder against plain runs of the same graph, with fresh buffers and nothing in place.

Both do the same float32 arithmetic, in another order at most; logits are about 4 in size, so 1e-4
leaves a factor of 100 over the rounding of a few hundred additions.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from glm_runtime import Model, load
from glm_runtime.errors import FolderError, GenerationError, PromptError
from glm_runtime.folder.manifest_entries import RopeEntry, Yarn
from glm_runtime.graph.decoding import Decoder, _fits, check_graph, check_length
from glm_runtime.graph.kv_cache import KvCache
from runtime.tiny_folder import TinyShape, build_tiny_folder

IDS = np.random.default_rng(3).integers(300, size=90).tolist()
LONG = TinyShape(context_length=1024)


@pytest.fixture(scope="session")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = build_tiny_folder(tmp_path_factory.mktemp("folders") / "long", LONG)
    return load(folder, device="cpu", threads=1)


@pytest.fixture(scope="session", params=["float32", "float16"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    shape = TinyShape(dtype=request.param)
    folder = build_tiny_folder(tmp_path_factory.mktemp("folders") / request.param, shape)
    return load(folder, device="cpu", threads=1)


def new_decoder(model: Model) -> Decoder:
    return Decoder(model.graph, model.manifest.model)


def tolerance(model: Model) -> float:
    """float16 keeps 11 bits of logits up to 16: 16 / 2048, and as much again from its cache."""
    return 1e-4 if model.manifest.model.cache_dtype == "float32" else 0.02


def run_plainly(model: Model, ids: list[int], num_logits: int) -> np.ndarray:
    """One run over the whole text with an empty past."""
    return run_with_past(model, ids, empty_past(model), num_logits)[0]


def empty_past(model: Model) -> dict[str, np.ndarray]:
    entry = model.manifest.model
    shape = (1, entry.num_kv_heads, 0, entry.head_dim)
    return {
        f"{layer}.{part}": np.zeros(shape, entry.cache_dtype)
        for layer in range(entry.num_layers)
        for part in ("key", "value")
    }


def run_with_past(
    model: Model, ids: list[int], past: dict[str, np.ndarray], num_logits: int = 1
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    session = model.graph.session
    total = past["0.key"].shape[2] + len(ids)
    feed = {f"past_key_values.{name}": value for name, value in past.items()}
    feed["input_ids"] = np.array([ids], np.int64)
    feed["attention_mask"] = np.ones((1, total), np.int64)
    feed["num_logits_to_keep"] = np.array([num_logits], np.int64)
    names = [f"present.{name}" for name in past]
    logits, *present = session.run(["logits", *names], feed)
    return logits[0], dict(zip(past, present, strict=True))


def test_the_last_logits_of_a_prompt_are_those_of_a_plain_run(model: Model):
    logits = new_decoder(model).append(IDS, num_logits=5)
    assert logits.shape == (5, model.manifest.model.vocab_size)
    np.testing.assert_allclose(logits, run_plainly(model, IDS, 5), atol=tolerance(model))


def test_no_more_logits_come_than_there_are_tokens(tiny_model: Model):
    assert new_decoder(tiny_model).append(IDS[:3], num_logits=8).shape[0] == 3


def test_decoding_in_place_equals_decoding_with_a_fresh_cache_each_step(model: Model):
    """The one buffer, read and written in place, against past and present apart."""
    decoder = new_decoder(model)
    decoder.append(IDS[:40])
    _, past = run_with_past(model, IDS[:40], empty_past(model))
    for token in IDS[40:60]:
        expected, past = run_with_past(model, [token], past)
        np.testing.assert_allclose(decoder.append([token]), expected, atol=tolerance(model))


@pytest.mark.parametrize("chunk", [1, 7, 32, 89, 90, 512])
def test_prefill_in_chunks_equals_prefill_at_once(tiny_model: Model, chunk: int):
    logits = new_decoder(tiny_model).prefill(IDS, chunk)
    np.testing.assert_allclose(logits, run_plainly(tiny_model, IDS, 1)[0], atol=1e-4)


def test_a_prompt_is_read_in_chunks_that_bound_the_memory(
    long_model: Model, monkeypatch: pytest.MonkeyPatch
):
    decoder, read = new_decoder(long_model), list[int]()
    append = decoder.append

    def count(tokens, num_logits=1):
        read.append(len(tokens))
        return append(tokens, num_logits)

    monkeypatch.setattr(decoder, "append", count)
    decoder.prefill(IDS * 3)
    assert read == [128, 128, 14]


def test_no_more_room_is_reserved_than_the_context_needs(long_model: Model):
    decoder = new_decoder(long_model)
    decoder.reserve(10**9)
    assert decoder._cache.capacity == 1024
    assert decoder.length == 0


def test_what_is_loaded_goes_on_as_where_it_was_copied(tiny_model: Model):
    first, second = new_decoder(tiny_model), new_decoder(tiny_model)
    first.append(IDS[:20])
    second.append(IDS[30:60])
    second.load_values(first.copy_values(), 20)
    assert second.length == 20
    np.testing.assert_array_equal(second.append([5, 6], 2), first.append([5, 6], 2))


def test_several_logits_after_a_past_are_those_of_the_same_positions(tiny_model: Model):
    """What the verification of drafted tokens will need."""
    decoder = new_decoder(tiny_model)
    decoder.append(IDS[:80])
    logits = decoder.append(IDS[80:88], num_logits=8)
    np.testing.assert_allclose(logits, run_plainly(tiny_model, IDS[:88], 8), atol=1e-4)


def test_the_number_of_logits_may_change_from_step_to_step(tiny_model: Model):
    decoder = new_decoder(tiny_model)
    for start, num_logits in ((0, 4), (10, 1), (20, 2), (30, 1)):
        logits = decoder.append(IDS[start : start + 10], num_logits)
        expected = run_plainly(tiny_model, IDS[: start + 10], num_logits)
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_after_truncation_the_rest_is_written_anew(tiny_model: Model):
    decoder = new_decoder(tiny_model)
    decoder.append(IDS[:70])
    decoder.truncate(25)
    assert decoder.length == 25
    logits = decoder.append(IDS[40:60])
    expected = run_plainly(tiny_model, IDS[:25] + IDS[40:60], 1)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_truncation_never_makes_the_text_longer(tiny_model: Model):
    decoder = new_decoder(tiny_model)
    decoder.append(IDS[:5])
    decoder.truncate(9)
    assert decoder.length == 5


def test_a_growing_cache_keeps_what_it_holds(long_model: Model):
    """255 + 1 + 1 crosses the first capacity of 256, the rest the second of 512."""
    ids = np.random.default_rng(4).integers(300, size=600).tolist()
    decoder = new_decoder(long_model)
    decoder.append(ids[:255])
    for token in ids[255:260]:
        decoder.append([token])
    logits = decoder.append(ids[260:], num_logits=3)
    np.testing.assert_allclose(logits, run_plainly(long_model, ids, 3), atol=1e-4)


def test_two_decoders_on_one_graph_do_not_disturb_each_other(tiny_model: Model):
    first, second = new_decoder(tiny_model), new_decoder(tiny_model)
    first.append(IDS[:20])
    second.append(IDS[50:])
    logits = first.append(IDS[20:30]).copy()
    np.testing.assert_allclose(logits, run_plainly(tiny_model, IDS[:30], 1), atol=1e-4)
    logits = second.append([5])
    np.testing.assert_allclose(logits, run_plainly(tiny_model, [*IDS[50:], 5], 1), atol=1e-4)


def test_the_context_can_be_filled_to_the_last_token_and_not_beyond(tiny_model: Model):
    """Beyond it, the kernel would write past the end of the buffer."""
    length = tiny_model.manifest.model.context_length
    decoder = new_decoder(tiny_model)
    decoder.append((IDS * 3)[: length - 1])
    decoder.append([1])
    with pytest.raises(PromptError, match=f"{length + 1} tokens .* context length is {length}"):
        decoder.append([1])


def test_what_onnxruntime_refuses_becomes_one_sentence(tiny_model: Model):
    with pytest.raises(GenerationError, match=r"onnxruntime failed at token 1 \(.+\); check"):
        new_decoder(tiny_model).append([10**6])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_layers": 3}, r"no tensor 'past_key_values\.2\.key', which the manifest requires"),
        ({"head_dim": 64}, r"past_key_values\.0\.key is tensor\(float\) \['B', 2, 'P', 32\] where"),
        (
            {"cache_dtype": "int8"},
            r"past_key_values\.0\.key is tensor\(float\) .* requires tensor\(int8\)",
        ),
        ({"cache_dtype": "float16"}, r"tensor\(float\) .* requires tensor\(float16\)"),
        ({"vocab_size": 512}, r"logits is .*448\] where the manifest requires .*512\]"),
    ],
)
def test_a_graph_that_breaks_the_manifests_promise_is_refused(
    tiny_model: Model, change: dict, sentence: str
):
    entry = dataclasses.replace(tiny_model.manifest.model, **change)
    with pytest.raises(FolderError, match=sentence):
        check_graph(tiny_model.graph, entry)


@pytest.mark.parametrize(
    ("found", "does_fit"),
    [(["B", 2, None], True), (["B", 3, "T"], False), (["B", "H", 7], True), (["B", 2], False)],
)
def test_open_dimensions_fit_any_size_and_fixed_ones_only_their_own(found: list, does_fit: bool):
    assert _fits(found, (None, 2, None)) == does_fit


@pytest.mark.parametrize(
    ("failure", "shown"), [(MemoryError, GenerationError), (KeyboardInterrupt, KeyboardInterrupt)]
)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_cache_that_could_not_grow_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type, shown: type, count: int
):
    """Part of the buffers were new then, and not bound: the next tokens went wrong."""
    shape = TinyShape(context_length=600)
    model = load(build_tiny_folder(tmp_path / "long", shape), device="cpu", threads=1)
    decoder = Decoder(model.graph, model.manifest.model)
    decoder.append([5] * 200)
    make, made = KvCache._make_buffer, []

    def fail(cache: KvCache, *arguments):
        made.append(1)
        if len(made) == count:
            raise failure
        return make(cache, *arguments)

    monkeypatch.setattr(KvCache, "_make_buffer", fail)
    with pytest.raises(shown):
        decoder.append([6] * 100)
    monkeypatch.undo()
    assert decoder.length == 200
    expected = Decoder(model.graph, model.manifest.model)
    expected.append([5] * 200)
    for name, values in decoder.copy_values().items():
        np.testing.assert_array_equal(values, expected.copy_values()[name])
    for tokens in ([7, 8], [9]):
        np.testing.assert_array_equal(decoder.append(tokens), expected.append(tokens))


def test_a_sequence_beyond_the_context_names_the_options_that_extend_it(tiny_model: Model):
    """The sentence once named the Python argument alone, also on the command line."""
    model, words = tiny_model.manifest.model, "--rope-scaling yarn --factor 4"
    plain = RopeEntry(theta=10000.0, periods=(1.0,), original_context=model.context_length)
    scaled = dataclasses.replace(plain, yarn=Yarn(4.0, model.context_length, 1.0))
    for rope, is_named in ((plain, True), (scaled, False), (None, False)):
        with pytest.raises(PromptError, match="start a new conversation") as error:
            check_length(model.context_length + 1, dataclasses.replace(model, rope=rope))
        assert (words in str(error.value)) == is_named
