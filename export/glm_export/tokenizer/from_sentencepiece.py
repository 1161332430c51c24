"""Conversion of the SentencePiece `tokenizer.model` of ChatGLM2 and ChatGLM3 to tokenizer.json.

SentencePiece joins the two neighbours whose piece has the highest score. This equals a BPE whose
merges are all pairs of pieces that form a piece, ordered by the score of that piece. A character
that is not a piece becomes its bytes. Spaces are written as "▁", and each text starts with one.
Source: the sentencepiece package's `sentencepiece_model.proto`; the tokens after the pieces are
those of `tokenization_chatglm.py`.
"""

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers

from glm_export.errors import CheckpointError, MissingPackageError, UnsupportedModelError
from glm_export.tokenizer.from_tiktoken import add_tokens, number_tokens, read_added_tokens

_SPACE = "▁"
_NORMAL, _BPE = 1, 2  # ModelProto.SentencePiece.Type, TrainerSpec.ModelType
# `sop` and `eop` get brackets as in GLM-4, because these words in a text would become the tokens,
# unless the checkpoint's own template or `added_tokens_decoder` has them without brackets.
BARE_START = "sop"
_SPECIAL_TOKENS = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>")
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")


def convert_sentencepiece(
    content: bytes, *, has_roles: bool, has_bare_start: bool, config: Mapping[str, Any]
) -> str:
    """Convert a tokenizer.model to a tokenizer.json.

    Args:
        content: content of tokenizer.model.
        has_roles: True if tokens for roles follow the other special tokens, as in ChatGLM3.
        has_bare_start: True if the token before a prompt is written `sop`, not `<sop>`.
        config: content of tokenizer_config.json, for `added_tokens_decoder`.

    Raises:
        MissingPackageError: the sentencepiece package is not installed.
        CheckpointError: the content is broken, or an added token cannot get its id.
        UnsupportedModelError: the model is not a BPE with pieces for bytes.
    """
    model = _parse(content)
    if model.trainer_spec.model_type != _BPE or not model.trainer_spec.byte_fallback:
        raise UnsupportedModelError(
            "tokenizer.model is a SentencePiece model, but not a BPE with pieces for bytes as "
            "ChatGLM's are; give the folder a tokenizer.json."
        )
    names = [piece.piece for piece in model.pieces]
    vocabulary = {name: index for index, name in enumerate(names)}
    bpe = models.BPE(
        vocabulary,
        _list_merges(model, vocabulary),
        unk_token=names[model.trainer_spec.unk_id],
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(_list_normalizers(model))
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    spec = model.normalizer_spec
    if spec.add_dummy_prefix or spec.remove_extra_whitespaces:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    special = [*_SPECIAL_TOKENS, *(_ROLES if has_roles else ())]
    if has_bare_start:
        special[special.index(f"<{BARE_START}>")] = BARE_START
    add_tokens(tokenizer, number_tokens(special, len(names)) | _read_added(config, special))
    return str(tokenizer.to_str())


def _read_added(config: Mapping[str, Any], special: list[str]) -> dict[int, AddedToken]:
    """Read `added_tokens_decoder` as the original tokenizer applies it.

    That tokenizer searches these tokens in the text as it is, before any normalization. Our special
    tokens are special whatever the configuration says, so that they do not appear in answers.
    """
    return {
        id_: AddedToken(
            token.content,
            special=token.special or token.content in special,
            normalized=False,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            single_word=token.single_word,
        )
        for id_, token in read_added_tokens(config).items()
    }


def _parse(content: bytes) -> Any:
    """Parse a `ModelProto`, whose class has no type annotations."""
    try:
        from sentencepiece import sentencepiece_model_pb2  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingPackageError(
            f"tokenizer.model needs the sentencepiece package, which cannot be imported ({error}); "
            "install it with `pip install sentencepiece`."
        ) from error
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made at run time
    try:
        model.ParseFromString(content)
        is_whole = bool(model.pieces) and 0 <= model.trainer_spec.unk_id < len(model.pieces)
    except Exception as error:  # protobuf's error class is not importable without protobuf
        raise CheckpointError(
            f"tokenizer.model is not what SentencePiece writes ({error}); download it again."
        ) from error
    if not is_whole:
        raise CheckpointError("tokenizer.model has no pieces; download it again.")
    return model


def _list_merges(model: Any, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return all pairs of pieces that form a piece, the piece with the highest score first."""
    pieces = [(-piece.score, piece.piece) for piece in model.pieces if piece.type == _NORMAL]
    merges = []
    for _, name in sorted(pieces):
        pairs = [(name[:place], name[place:]) for place in range(1, len(name))]
        known = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
        merges += sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return merges


def _list_normalizers(model: Any) -> list[normalizers.Normalizer]:
    """Return SentencePiece's steps in order: characters, repeated spaces, first space, "▁"."""
    spec = model.normalizer_spec
    found: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        found.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        ends, runs = Regex("^ +| +$"), Regex(" {2,}")
        found += [normalizers.Replace(ends, ""), normalizers.Replace(runs, " ")]
    if spec.add_dummy_prefix:
        found.append(normalizers.Prepend(_SPACE))
    return [*found, normalizers.Replace(" ", _SPACE)]
