"""What comes with the package: configurations, vocabularies, trained models, and its commands."""
