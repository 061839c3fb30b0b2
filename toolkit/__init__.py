"""One recipe, two frameworks, the same numbers."""

__version__ = "0.1.0"
