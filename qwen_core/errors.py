"""Errors that a user can meet, each with a message that says what to do next.

`exit_code` is what a command or a job ends with, so that a scheduler can tell a fault of the recipe, which
no retry mends, from a fault of the machine, which one may.
"""


class QwenCoreError(Exception):
    """Base of all errors raised on purpose; its text is written for the user, without a traceback."""

    exit_code = 1


class RecipeError(QwenCoreError):
    """The recipe, or an override, is wrong: every fault is listed. A retry cannot help."""

    exit_code = 2


class InputError(QwenCoreError):
    """The data that a stage was given is missing, empty or unusable. A retry cannot help."""

    exit_code = 3


class ArtifactError(QwenCoreError):
    """An artifact is missing, incomplete or damaged."""

    exit_code = 4


class PlatformError(QwenCoreError):
    """A service of the platform did not start, died, or its port or its resources are taken."""

    exit_code = 5


class RayJobError(QwenCoreError):
    """A Ray job failed, was stopped, or was lost with its cluster."""

    exit_code = 6


class MissingDependencyError(QwenCoreError):
    """An optional part of the installation is needed; the message names the extra to install."""

    exit_code = 7


class DivergedError(QwenCoreError):
    """Training went astray and going back did not help. A retry would do the same again."""

    exit_code = 8


class NothingToDoError(QwenCoreError):
    """Nothing new: skipped, for the reason that the text gives. No fault."""

    exit_code = 9
