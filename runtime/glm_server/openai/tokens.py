"""`POST /tokenize`, `/detokenize` and `/apply-template`: how texts and messages become tokens.

The names are llama.cpp's; its server has the same three endpoints.
"""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import Field

from glm_runtime import Model
from glm_server.answers import use_model
from glm_server.errors import ApiError
from glm_server.openai.chat_request import read_prompt
from glm_server.openai.chat_schema import ChatPromptFields
from glm_server.schema import Body, Reply

router = APIRouter()


class TokenizeRequest(Body):
    """Body of `POST /tokenize`."""

    content: str
    model: str | None = None
    is_sanitized: bool = Field(
        False, description="Read names of control tokens, such as <|user|>, as plain text."
    )


class Tokens(Reply):
    """The tokens of a text."""

    tokens: list[int]


class DetokenizeRequest(Body):
    """Body of `POST /detokenize`."""

    tokens: list[Annotated[int, Field(ge=0)]]
    model: str | None = None


class Content(Reply):
    """The text of tokens, without control tokens."""

    content: str


class AppliedTemplate(Reply):
    """The prompt that messages become."""

    prompt: str
    tokens: list[int]


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, http: HttpRequest) -> Tokens:
    """Return the tokens of a text."""

    def encode(model: Model) -> Tokens:
        text = body.content
        marks = model.tokenizer.control_marks
        if body.is_sanitized:
            return Tokens(tokens=model.tokenizer.encode_marked(str(marks.mark(text))))
        ids = model.tokenizer.encode(text)
        return Tokens(tokens=ids)

    return await use_model(http, body.model, encode)


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, http: HttpRequest) -> Content:
    """Return the text of tokens."""

    def decode(model: Model) -> Content:
        size = model.manifest.model.tokenizer_vocab_size
        wrong = next((id_ for id_ in body.tokens if id_ >= size), None)
        if wrong is not None:
            raise ApiError(
                HTTPStatus.BAD_REQUEST,
                f"tokens holds the id {wrong} where ids below {size} are expected.",
                param="tokens",
            )
        return Content(content=model.tokenizer.decode(body.tokens))

    return await use_model(http, body.model, decode)


@router.post("/apply-template")
async def apply_template(body: ChatPromptFields, http: HttpRequest) -> AppliedTemplate:
    """Return the prompt that messages become, as a text and as tokens."""

    def render(model: Model) -> AppliedTemplate:
        tokens = read_prompt(body).prepare(model).token_ids
        text = b"".join(map(model.tokenizer.token_bytes, tokens)).decode("utf-8", "replace")
        return AppliedTemplate(prompt=text, tokens=tokens)

    return await use_model(http, body.model, render)
