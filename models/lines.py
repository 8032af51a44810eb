"""What trainings and evaluations say of themselves, line by line. Imports nothing: the command line looks at it too."""


class Passing(str):
    """A line that the next one may replace, such as the step that a training is at. Any other line stays."""

    __slots__ = ()
