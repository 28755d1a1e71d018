"""The verbs that serve pages or predictions: ui, dashboard, serve (see cli/servers.py)."""

import argparse


def ui(args: argparse.Namespace) -> None:
    from ferhpo.cli import servers

    servers.ui(args)


def dashboard(args: argparse.Namespace) -> None:
    from ferhpo.cli import servers

    servers.dashboard(args)


def serve(args: argparse.Namespace) -> None:
    from ferhpo.cli import servers

    servers.serve(args)
