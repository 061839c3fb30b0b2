"""The errors that a user can mend. The command line prints them without a traceback and exits with ``code``."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Something the user can mend: one clear line a problem.

    Args:
        problems: one line each: which file, record or key; what was found; what was expected; how to mend it.
        headline: one line above them.
    """

    code = 2

    def __init__(self, problems: Sequence[str] | str, headline: str = "") -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.headline = headline
        super().__init__("\n".join(([headline] if headline else []) + self.problems))


class ConfigError(UserError):
    """A config that cannot be run."""


class DataError(UserError):
    """Data that cannot be trained on."""


class RunError(UserError):
    """The run failed on the way (a full disk, a loss that is not finite)."""

    code = 1


class Interrupted(Exception):
    """A signal asked the run to stop; a checkpoint was left. ``code`` is 128 + the signal's number."""

    def __init__(self, signum: int, folder: object) -> None:
        self.code = 128 + signum
        super().__init__(f"interrupted by signal {signum}; a checkpoint was left, go on with resume={folder}")
