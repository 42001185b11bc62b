"""What can be wrong with a search, in words for its client."""

from baatcheet.platform.errors import Invalid


class NothingToFind(Invalid):
    """There is nothing to look for."""

    type = "nothing-to-find"

    def __init__(self, *, only_exclusions: bool) -> None:
        detail = (
            "Every word is excluded with a minus sign. Add a word that is to be there: budget -draft."
            if only_exclusions
            else "There is no word to look for in q. Write one or more: meeting notes."
        )
        super().__init__(detail, param="q")
