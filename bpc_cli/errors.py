"""The one exception for what a user can cause and mend."""


class UserError(Exception):
    """One line that says what is wrong and what to do; commands print it without a traceback."""
