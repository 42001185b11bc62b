"""`/api/v1/tokens/count`: what a text or a prompt costs a model, without asking it."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request, Security
from pydantic import Field

from baatcheet.auth.access import Requires
from baatcheet.auth.principal import Principal
from baatcheet.chat.errors import model_not_found
from baatcheet.chat.requests import bounded, part_problem, texts_of
from baatcheet.context import counting
from baatcheet.context.tokenizers import Tokenizer, Tokenizers
from baatcheet.conversations.wire import stored_form
from baatcheet.platform.errors import Invalid
from baatcheet.platform.openapi import problems
from baatcheet.platform.rest import Body, Out
from baatcheet.platform.settings import Settings
from baatcheet.providers.catalogue import UnknownModel
from baatcheet.providers.model import ModelCard
from baatcheet.providers.routing.model import Models

router = APIRouter(prefix="/api/v1/tokens", tags=["chat"])

MOST_MESSAGES = 10_000

Chatter = Annotated[Principal, Security(Requires("chat"))]


class Countable(Body):
    """Either a text, or the messages of a prompt with what goes beside them."""

    model: str | None = Field(
        None,
        max_length=500,
        description="As in a chat; left out: as messages are counted when they are stored.",
    )
    text: str | None = Field(None, description="A text by itself, without a chat format.")
    messages: list[dict[str, Any]] | None = Field(
        None, min_length=1, max_length=MOST_MESSAGES, description="In OpenAI's form."
    )
    tools: list[dict[str, Any]] | None = Field(None, description="In OpenAI's form; with `messages`.")
    response_format: dict[str, Any] | None = Field(None, description="In OpenAI's form; with `messages`.")


class Counted(Out):
    """What it costs."""

    model: str | None = Field(description="provider/model; null when none was named.")
    tokens: int = Field(description="All together, the chat format's own included.")
    exact: bool = Field(
        description=(
            "Whether they were counted by the model's own vocabulary. False with tools, calls of tools, a response "
            "format or parts that are not text, such as pictures: what those cost is approximated."
        )
    )
    tokenizer: str = Field(description="What counted.")
    context_window: int | None = Field(
        description="What the model can hold, prompt and reply together; null when none was named."
    )
    messages: list[int] | None = Field(description="What each message costs; null for a text.")
    tools: int = Field(description="What the tools and the reply's schema cost.")


@router.post("/count", summary="Count tokens", responses=problems(404, body=True))
async def count_tokens(request: Request, _: Chatter, body: Countable) -> Counted:
    """By the model's own vocabulary where that is at hand, else by an estimate that learns from each reply."""
    if (body.text is None) == (body.messages is None):
        raise Invalid("Say what: either text or messages.", param="text")
    if body.messages is None and (body.tools is not None or body.response_format is not None):
        raise Invalid("tools and response_format go with messages.", param="messages")
    state = request.app.state
    card = await _card(state.catalogue, body.model) if body.model is not None else None
    tokenizers: Tokenizers = state.tokenizers
    tokenizer = tokenizers.of(card) if card is not None else tokenizers.stored
    work, size = partial(_counted, card, tokenizer, body, state.settings), _size(body)
    return await counting.aside(size, work) if size > counting.INLINE_CHARACTERS else work()


def _size(body: Countable) -> int:
    """About how many characters there are to count; told at once, whatever there is."""
    size = len(body.text or "") + counting.extent([body.tools, body.response_format])
    for message in body.messages or ():
        size += counting.message_extent(message.get("content"), message)
        if size > counting.VERY_LONG:
            break
    return size


def _check(body: Countable, settings: Settings) -> None:
    """Raises Invalid, TooLarge."""
    limit = settings.server.max_message_bytes
    if body.text is not None:
        bounded([body.text], limit, param="text")
    for index, message in enumerate(body.messages or ()):
        where = f"messages[{index}]"
        if problem := _message_problem(message):
            raise Invalid(f"{where}{problem}.", param=where)
        bounded(texts_of(message.get("content")), limit, param=where)


def _message_problem(message: dict[str, Any]) -> str | None:
    """What is wrong with it, after where it is."""
    if not isinstance(message.get("role"), str):
        return ".role must be a string"
    content = message.get("content")
    if not isinstance(content, str | list | None):
        return ".content must be a string or a list of parts"
    problem = part_problem(content)
    return f".content: {problem}" if problem else None


async def _card(catalogue: Models, model: str) -> ModelCard:
    try:
        return (await catalogue.resolve(model))[0].model
    except UnknownModel as unknown:
        raise model_not_found(unknown) from None


def _counted(card: ModelCard | None, tokenizer: Tokenizer, body: Countable, settings: Settings) -> Counted:
    _check(body, settings)
    messages, tools = None, 0
    if body.messages is None:
        tokens = tokenizer.count(body.text or "")
    else:
        try:
            messages = [tokenizer.message(*stored_form(message)) for message in body.messages]
            tools = sum(tokenizer.json(part) for part in (body.tools, body.response_format) if part)
        except RecursionError:
            raise Invalid("The body is nested too deeply.") from None
        tokens = sum(messages) + tools + tokenizer.priming
    return Counted(
        model=card.id if card else None,
        tokens=tokens,
        exact=tokenizer.exact and not tools and all(map(_is_text, body.messages or ())),
        tokenizer=tokenizer.name,
        context_window=card.context_window if card else None,
        messages=messages,
        tools=tools,
    )


def _is_text(message: dict[str, Any]) -> bool:
    content = message.get("content")
    return not message.get("tool_calls") and (
        not isinstance(content, list) or all(part["type"] == "text" for part in content)
    )
