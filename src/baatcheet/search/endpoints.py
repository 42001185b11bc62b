"""`/api/v1/search`."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request

from baatcheet.auth.access import Reader
from baatcheet.conversations.schemas import Role
from baatcheet.platform.openapi import problems
from baatcheet.platform.rest import Cursor, Id, Limit, Line, Moment, QueryFlag, Text
from baatcheet.search.ranking import Order
from baatcheet.search.schemas import (
    Correction,
    FoundConversation,
    FoundMessage,
    Hit,
    SearchPage,
    SnippetOut,
)
from baatcheet.search.service import Filters, Found, Kind, Search

TAG = {"name": "search", "description": "Finding what was said."}

LIMIT = 20
MAX_QUERY = 1_000  # characters

router = APIRouter(prefix="/api/v1/search", tags=["search"])


def _search(request: Request) -> Search:
    service: Search = request.app.state.search
    return service


Service = Annotated[Search, Depends(_search)]


@router.get("", summary="Search messages and titles", responses=problems(400, 422))
async def search(
    who: Reader,
    search: Service,
    q: Annotated[
        Text,
        Query(
            min_length=1,
            max_length=MAX_QUERY,
            description='Words that must all be there; `"quoted phrases"`, `-not`, `this or that`. Any text will do.',
            examples=['budget or forecast "third quarter" -draft'],
        ),
    ],
    sort: Annotated[Order, Query(description="What comes first.")] = "relevance",
    group: Annotated[
        Literal["none", "conversation"],
        Query(description="`conversation`: the best hit of each conversation, and how many it has."),
    ] = "none",
    typing: Annotated[
        QueryFlag, Query(description="While `q` is being typed: its last word may be the beginning of one.")
    ] = False,
    kind: Annotated[Kind | None, Query(description="Left out: both.")] = None,
    role: Annotated[Role | None, Query(description="Only messages of this role.")] = None,
    model: Annotated[
        Line | None, Query(max_length=200, description="Only replies of this model, as a message names it.")
    ] = None,
    conversation_id: Annotated[Id | None, Query(description="Only in this conversation.")] = None,
    project_id: Annotated[Id | None, Query(description="Only in conversations of this project.")] = None,
    tag: Annotated[
        Line | None, Query(max_length=64, description="Only in conversations with this tag.")
    ] = None,
    archived: Annotated[QueryFlag | None, Query(description="Left out: both.")] = None,
    since: Annotated[
        Moment | None, Query(description="Not older.", examples=["2027-01-01T00:00:00Z"])
    ] = None,
    until: Annotated[Moment | None, Query(description="Older.", examples=["2027-02-01T00:00:00Z"])] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> SearchPage:
    """What was said is found from the moment on in which it is stored.

    Words are found in their other forms (`run`, `running`), in other spellings (`kitaab`, `kitab`), and by the parts
    of a name in a program. A page may be shorter than `limit` where a phrase is made of very common words.
    """
    filters = Filters(
        kind=kind,
        role=role,
        model=model,
        conversation_id=conversation_id,
        project_id=project_id,
        archived=archived,
        tag=tag,
        since=since,
        until=until,
    )
    page = await search.find(
        who,
        q,
        filters,
        order=sort,
        grouped=group == "conversation",
        typing=typing,
        limit=limit,
        cursor=cursor,
    )
    return SearchPage(
        data=[_hit(one) for one in page.found],
        next_cursor=page.next_cursor,
        has_more=page.next_cursor is not None,
        corrections=[Correction(word=word, instead=instead) for word, instead in page.corrections.items()],
        ignored=page.ignored,
        unindexed=page.waiting,
    )


def _hit(found: Found) -> Hit:
    document = found.document
    conversation = f"/api/v1/conversations/{document.conversation_id}"
    message = None
    if document.kind == "message":
        assert document.role is not None
        message = FoundMessage(
            id=document.id, role=document.role, model=document.model, created_at=document.created
        )
    return Hit(
        kind=document.kind,
        conversation=FoundConversation(id=document.conversation_id, title=document.title),
        message=message,
        snippet=SnippetOut(text=found.snippet.text, highlights=list(found.snippet.highlights)),
        url=f"{conversation}/messages?around={document.id}" if message is not None else conversation,
        hits=found.hits,
    )
