"""The one exception for what a user can cause and mend, and errors in one line."""


class UserError(Exception):
    """One line that says what is wrong and what to do; commands print it without a traceback.

    Attributes:
        ends_sweep: whether the jobs of a sweep that are still to come are not to be run.
        is_planned: whether it ended a job as the user wished, which is no failure.
    """

    ends_sweep = False
    is_planned = False


def one_line(error: BaseException) -> str:
    """Say what an error says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())


def cut_off(text: str, most: int) -> str:
    """Cut a text off after so many letters, and show that."""
    return text if len(text) <= most else f"{text[: max(0, most - 1)]}…"
