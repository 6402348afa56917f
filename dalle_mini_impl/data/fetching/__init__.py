"""Builds the collections that shipped configurations are trained on, where they can be had."""
