"""What a person can put right is said in one line; everything else is a bug and keeps its traceback."""


class Refusal(Exception):
    """A stage stops because of its input, and the message says what to do about it."""


class Busy(Refusal):
    """Another process is in the way, and will be gone: the same command is worth another try."""
