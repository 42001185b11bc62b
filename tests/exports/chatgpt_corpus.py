"""Conversations as ChatGPT has exported them over the years: every variant that is known, written by hand."""

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]
BEGAN = 1_700_000_000.25


def node(
    id: str,  # noqa: A002 - the format's word
    parent: str | None,
    message: Json | None = None,
    children: Sequence[str] | None = (),
) -> Json:
    """`children` None: left out, as newer exports do."""
    made = {"id": id, "parent": parent, "message": message}
    return made if children is None else made | {"children": list(children)}


def message(
    role: str,
    content: Json | str,
    *,
    at: float | str | None = None,
    name: str | None = None,
    recipient: str | None = "all",
    metadata: Json | None = None,
    weight: float = 1.0,
    **more: Any,
) -> Json:
    if isinstance(content, str):
        content = {"content_type": "text", "parts": [content]}
    return {
        "id": "m",
        "author": {"role": role, "name": name, "metadata": {}},
        "create_time": at,
        "update_time": None,
        "content": content,
        "status": "finished_successfully",
        "end_turn": True,
        "weight": weight,
        "metadata": metadata if metadata is not None else {},
        "recipient": recipient,
        "channel": None,
        **more,
    }


def conversation(nodes: Sequence[Json], *, current: str | None = None, **more: Any) -> Json:
    return {
        "title": "Trip to Hunza",
        "create_time": BEGAN,
        "update_time": BEGAN + 600,
        "mapping": {one["id"]: one for one in nodes},
        "moderation_results": [],
        "current_node": current if current is not None else (nodes[-1]["id"] if nodes else None),
        "plugin_ids": None,
        "conversation_id": "6c0f4b52-2f5f-4d0a-9a53-0c3c6ed1f0aa",
        "conversation_template_id": None,
        "gizmo_id": None,
        "is_archived": False,
        "safe_urls": [],
        "default_model_slug": "gpt-4o",
        "id": "6c0f4b52-2f5f-4d0a-9a53-0c3c6ed1f0aa",
        **more,
    }


def chain(*messages: Json | None) -> list[Json]:
    """Nodes that follow each other, below an empty root."""
    names = [f"n{at}" for at in range(len(messages))]
    nodes = [node("root", None, None, names[:1])]
    for at, (name, one) in enumerate(zip(names, messages, strict=True)):
        nodes.append(node(name, names[at - 1] if at else "root", one, names[at + 1 : at + 2]))
    return nodes


def branched(*, children: bool = True) -> list[Json]:
    """A question with two answers, the second of which was answered twice. Node a3 is the deepest."""
    below: dict[str, Any] = {"root": ["q"], "q": ["a1", "a2"], "a2": ["q2", "q3"], "q2": ["a3"]}
    above = {"q": "root", "a1": "q", "a2": "q", "q2": "a2", "q3": "a2", "a3": "q2"}
    said = {
        "q": message("user", "question", at=BEGAN + 1),
        "a1": message("assistant", "first try", at=BEGAN + 2),
        "a2": message("assistant", "second try", at=BEGAN + 3),
        "q2": message("user", "and then?", at=BEGAN + 4),
        "a3": message("assistant", "then this", at=BEGAN + 5),
        "q3": message("user", "edited: and then?", at=BEGAN + 6),
    }
    return [
        node(name, above.get(name), said.get(name), below.get(name, []) if children else None)
        for name in ("root", *said)
    ]
