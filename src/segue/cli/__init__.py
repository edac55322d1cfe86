"""The command line; what is heavy is imported inside the commands."""

from segue.cli.app import main as main
