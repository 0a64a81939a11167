"""What a person can put right, in one line. A picture that cannot be read is another matter: pictures.Unreadable."""


class Unusable(Exception):
    """A file that cannot be asked, or a question that cannot be answered; the message says why."""
