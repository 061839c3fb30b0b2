"""The certificate that a recipe's twins train alike: ``python -m toolkit certify`` (docs/design/twins.md)."""
