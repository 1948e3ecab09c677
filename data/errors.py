"""The one exception for what a user can mend."""


class UserError(Exception):
    """Something the user can mend: a wrong path, a damaged file, an impossible setting.

    The message is one sentence that says what is wrong and what to do. The command line prints it and
    exits with code 2; the dashboard shows it instead of the view. Any other exception is an internal error.
    """
