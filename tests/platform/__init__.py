"""Tests of the platform."""  # noqa: A005 - named after the package under test
