"""What can't be answered about usage."""

from baatcheet.platform.errors import Invalid


class RangeTooLarge(Invalid):
    """That is more than one answer holds."""

    type = "range-too-large"
    openai_code = "range_too_large"
