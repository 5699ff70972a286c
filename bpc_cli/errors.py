"""The one exception for what a user can cause and mend."""


class UserError(Exception):
    """One line that says what is wrong and what to do; commands print it without a traceback.

    Attributes:
        ends_sweep: whether the jobs of a sweep that are still to come are not to be run.
    """

    ends_sweep = False
