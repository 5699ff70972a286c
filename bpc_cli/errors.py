"""The one exception for what a user can cause and mend, and errors in one line."""


class UserError(Exception):
    """One line that says what is wrong and what to do; commands print it without a traceback.

    Attributes:
        ends_sweep: whether the jobs of a sweep that are still to come are not to be run.
    """

    ends_sweep = False


def one_line(error: BaseException) -> str:
    """Say what an error says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())
