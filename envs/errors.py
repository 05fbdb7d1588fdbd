"""The one error that is for people: wrong input, said in one sentence."""

from __future__ import annotations


class UserError(Exception):
    """Wrong input by the user: one sentence that names the value, the place and the allowed range.

    The command line prints the sentence and exits with code 2; library users catch it like any exception.
    """
