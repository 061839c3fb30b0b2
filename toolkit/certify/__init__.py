"""Certificates that the twins of a recipe train alike: ``toolkit certify`` (docs/design/twins.md)."""
