"""What can go wrong with a conversation, in words for its client."""

from uuid import UUID

from baatcheet.platform.errors import Conflict, NotFound


class ConversationNotFound(NotFound):
    """There is no such conversation."""

    type = "conversation-not-found"
    openai_code = "conversation_not_found"

    def __init__(self, conversation_id: UUID | str | None, *, param: str | None = None) -> None:
        super().__init__(f"There is no conversation {conversation_id}.", param=param)


class MessageNotFound(NotFound):
    """There is no such message."""

    type = "message-not-found"
    openai_code = "message_not_found"

    def __init__(self, message_id: UUID | str, *, param: str | None = None) -> None:
        where = " in this conversation" if param is not None else ""
        super().__init__(f"There is no message {message_id}{where}.", param=param)


class TurnInProgress(Conflict):
    """This conversation is already answering."""

    type = "turn-in-progress"
    openai_code = "turn_in_progress"

    def __init__(self, turn_id: UUID) -> None:
        super().__init__(
            f"Turn {turn_id} is still running in this conversation. Wait for it, follow it at "
            f"/api/v1/turns/{turn_id}/events, or stop it with POST /api/v1/turns/{turn_id}/cancel.",
            turn_id=str(turn_id),
        )
