"""The certificate that a recipe's twins train alike: ``python -m toolkit certify recipe=NAME`` (docs/twins.md)."""
