"""``edgemodel operator``: its place in ``--help``. ``main`` hands its arguments over before they are parsed here."""

from edgemodel.cli.command import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    commands.add_parser(
        "operator", help="run the operator, in a cluster (edgemodel operator --help)", add_help=False
    )
